"""What orchestration adds to a stage: its time in the flow minus the time that its own process measures of itself.

    python benchmarks/orchestration.py

A tiny recipe (one benchmark, stage one in one process) runs twice for each seed against a Prefect server on loopback, in a
project of its own: from nothing, and again with nothing to do.
"""

import json
import os
import statistics
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from flows.server import PrefectServer, prefect_server

SMALL = [
    "data.benchmarks=[P2R]",
    "data.world.proxy_images=64",
    "data.world.train_images=32",
    "data.world.val_images=8",
    "data.world.target_images=8",
    "distill_proxy.updates=40",
    "distill_proxy.warm_start.updates=20",
    "distill_source.updates=20",
    "learn_task.updates=40",
    "compute.workers=0",
]
Stages = dict[str, float]


def main(
    rounds: Annotated[int, typer.Option(min=1, help="How often to run from nothing, each with a seed of its own.")] = 3,
) -> None:
    """Measure, and print a table: medians over the rounds, in seconds."""
    with tempfile.TemporaryDirectory() as folder, project(Path(folder)) as server:
        ran, own, unchanged, flows = [], [], [], []
        for seed in range(rounds):
            first = run(server, seed)
            again = run(server, seed)
            ran.append(first["tasks"])
            own.append(first["own"])
            unchanged.append(again["tasks"])
            flows.append((first["flow"] - sum(first["tasks"].values()), again["flow"]))
    show(ran, own, unchanged, flows)


@contextmanager
def project(folder: Path) -> Iterator[PrefectServer]:
    """An empty project with a Prefect server; the current folder of this process while the block lasts."""
    before = Path.cwd()
    (folder / "params.yaml").touch()
    for name in ("MLFLOW_TRACKING_URI", "RAY_ADDRESS"):
        os.environ.pop(name, None)
    with prefect_server(folder) as server:
        server.wait()
        os.environ.update(server.environment)
        os.chdir(folder)
        try:
            yield server
        finally:
            os.chdir(before)


def run(server: PrefectServer, seed: int) -> dict[str, Any]:
    """Run the flow; seconds of the whole of it, of each task, and what each stage has measured of itself."""
    from flows.pipeline import full_pipeline
    from gkd_core.settings import load_settings
    from gkd_core.tracking.flow_runs import Tracking

    overrides = [*SMALL, f"seed={seed}"]
    began = time.monotonic()
    result = full_pipeline(profile="demo", overrides=overrides)
    seconds = time.monotonic() - began
    tracking = Tracking(load_settings(None, "demo", overrides), Path.cwd())
    parent = tracking.client.get_run(result["mlflow_run"])
    children = tracking.client.search_runs([tracking.experiment], f"tags.`mlflow.parentRunId` = '{parent.info.run_id}'")
    own = {child.data.tags["stage"]: child.data.metrics["cost/seconds"] for child in children}
    return {"flow": seconds, "tasks": tasks_of(server, parent.data.tags["prefect.flow_run_id"]), "own": own}


def tasks_of(server: PrefectServer, flow_run: str) -> Stages:
    """Seconds that each task of a flow run was running, as Prefect has it."""
    query = json.dumps({"flow_runs": {"id": {"any_": [flow_run]}}}).encode()
    request = urllib.request.Request(f"{server.url}/api/task_runs/filter", query, {"Content-Type": "application/json"})
    deadline = time.monotonic() + 30
    while True:
        with urllib.request.urlopen(request, timeout=30) as answer:
            found = json.load(answer)
        # Task runs reach the server as events, a moment after they have ended.
        if found and all(task["state_type"] == "COMPLETED" for task in found):
            return {task["name"]: float(task["total_run_time"]) for task in found}
        if time.monotonic() > deadline:
            raise RuntimeError(f"Prefect still has unfinished tasks of {flow_run}: {[task['name'] for task in found]}")
        time.sleep(0.5)


def show(ran: list[Stages], own: list[Stages], unchanged: list[Stages], flows: list[tuple[float, float]]) -> None:
    """Print medians over the rounds."""
    table = Table(title="Seconds, median", title_justify="left")
    for column in ("stage", "in the flow", "its own", "overhead", "with nothing to do"):
        table.add_column(column, justify="left" if column == "stage" else "right")
    for name in ran[0]:
        whole = statistics.median(stages[name] for stages in ran)
        alone = [stages[name] for stages in own if name in stages]
        self_measured = statistics.median(alone) if alone else 0.0
        idle = statistics.median(stages[name] for stages in unchanged)
        table.add_row(name, f"{whole:.1f}", f"{self_measured:.1f}", f"{whole - self_measured:.1f}", f"{idle:.1f}")
    console = Console()
    console.print(table)
    around, again = (statistics.median(values) for values in zip(*flows, strict=True))
    console.print(f"The flow around its tasks: {around:.1f} s; the whole flow with nothing to do: {again:.1f} s")


if __name__ == "__main__":
    typer.run(main)
