"""Two workers against one, here: the speed-up of stage one, the most that this machine allows, and what the simulator predicts.

What is measured, in turns: one worker on a whole batch and on half of one, two of them side by side that know nothing of each
other (the ceiling: they share memory, cache and clock, but exchange nothing), an exchange of gradients alone, and, as what
is to be predicted, two workers that share each batch. The prediction knows all of these but the last. Example:

    python benchmarks/scaling.py --profile demo --stage distill-source --output /tmp/scaling
    gkd plan demo --cluster /tmp/scaling/cluster.yaml --measured /tmp/scaling/measured.json
"""

from __future__ import annotations

import json
import os
import statistics
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import torch
import typer
import yaml
from photographs import write_photographs
from rich.console import Console
from rich.table import Table
from teams import LAUNCHERS, Launcher, Run, exchange_seconds

from gkd_core.data.catalog.load import load_catalog
from gkd_core.distill.job import DistillJob, step_encoder
from gkd_core.distill.stage_one import build_objective, frozen_teacher
from gkd_core.methods import method_of
from gkd_core.planning.cluster import Cluster
from gkd_core.planning.collectives import bucket_count
from gkd_core.planning.demand import Demand, demands
from gkd_core.planning.paces import Pace, Paces
from gkd_core.planning.simulate import simulate_stage
from gkd_core.planning.work import plan_work
from gkd_core.settings import Settings, load_settings
from gkd_core.stages import Recipe

WORKERS = 2
NO_LIMIT = 1e6  # for what a prediction of updates does not depend on


def main(
    profile: Annotated[str, typer.Option(help="Profile whose models, batch and crop are taken.")] = "demo",
    stage: Annotated[str, typer.Option(help="distill-proxy or distill-source.")] = "distill-source",
    set_: Annotated[list[str] | None, typer.Option("--set", help="One setting on top. Can be repeated.")] = None,
    launcher: Annotated[str, typer.Option(help=f"Who starts the workers: {', '.join(LAUNCHERS)}.")] = "ray",
    updates: Annotated[int, typer.Option(help="Updates of one report.")] = 20,
    reports: Annotated[int, typer.Option(help="Reports of a run after its first, of which the median counts.")] = 4,
    rounds: Annotated[int, typer.Option(help="Times that everything is measured; medians are shown.")] = 3,
    images: Annotated[int, typer.Option(help="Photographs to generate.")] = 128,
    size: Annotated[tuple[int, int], typer.Option(help="Their width and height, pixels.")] = (128, 64),
    output: Annotated[Path | None, typer.Option(help="Folder for measured.json and cluster.yaml.")] = None,
) -> None:
    """Measure, predict, and print both."""
    settings = load_settings(None, profile, [*(set_ or []), "compute.device=cpu"])
    demand = _demand(settings, stage)
    with tempfile.TemporaryDirectory() as folder:
        job = _job(settings, demand, write_photographs(Path(folder) / "images", images, size), updates, reports + 1)
        measured = [_round(job, demand, Path(folder) / str(number), LAUNCHERS[launcher]) for number in range(rounds)]
    runs = {name: Run.median([each[name] for each in measured]) for name in measured[0]}
    shapes = _shapes(job)
    exchange = [exchange_seconds(shapes) for _ in range(rounds)]
    whole, empty = (statistics.median(column) for column in zip(*exchange, strict=True))
    pace, cluster = _pace(runs, demand), _cluster(runs, demand, whole, empty)
    _show(runs, demand, pace, cluster, whole, launcher)
    if output is not None:
        output.mkdir(parents=True, exist_ok=True)
        (output / "measured.json").write_text(json.dumps({stage: pace.model_dump()}, indent=1) + "\n")
        (output / "cluster.yaml").write_text(yaml.safe_dump(cluster.model_dump(mode="json"), sort_keys=False))
        print(f"wrote {output / 'measured.json'} and {output / 'cluster.yaml'}")


def _demand(settings: Settings, stage: str) -> Demand:
    """What the first stage run of this stage asks for."""
    catalog = load_catalog(settings.data.catalogs)
    works = [work for work in plan_work(Recipe(settings, catalog), Path.cwd()) if work.name.startswith(stage)]
    return demands(Recipe(settings, catalog), Path.cwd(), works[:1])[0]


def _shapes(job: DistillJob) -> list[torch.Size]:
    """Of all parameters that learn."""
    objective = build_objective(job, frozen_teacher(job.teacher, job.seed).dim)
    return [each.shape for each in objective.parameters() if each.requires_grad]


def _job(settings: Settings, demand: Demand, images: tuple[Path, ...], updates: int, reports: int) -> DistillJob:
    section = getattr(settings, demand.section)
    section = section.model_copy(
        update={"updates": updates * reports, "epochs": None, "log_every": updates, "checkpoint_every": 10**9}
    )
    return DistillJob(
        title="scaling",
        objective=str(method_of(settings).distillation),
        settings=section,
        updates=section.updates,
        teacher=step_encoder(settings.teacher, section),
        student=step_encoder(settings.student, section),
        images=images,
        start=None,
        seed=0,
        threads=settings.compute.threads,
        device="cpu",
        run_folder=Path(),
        loaders=settings.compute.loaders,
    )


def _round(job: DistillJob, demand: Demand, folder: Path, launcher: Launcher) -> dict[str, Run]:
    share = demand.work.batch_size // WORKERS
    half = replace(job, settings=job.settings.model_copy(update={"batch_size": share}))
    return {
        "whole": launcher.apart(job, 1, folder / "whole"),
        "half": launcher.apart(half, 1, folder / "half"),
        "one": launcher.together(job, 1, folder / "one"),
        "beside": launcher.apart(half, WORKERS, folder / "beside"),
        "two": launcher.together(job, WORKERS, folder / "two"),
    }


def _pace(runs: dict[str, Run], demand: Demand) -> Pace:
    """A line through what one worker computes in an update of a whole batch and of its half."""
    batch, share = demand.work.batch_size, demand.work.batch_size // WORKERS
    slope = (runs["whole"].computing - runs["half"].computing) / (batch - share)
    fixed = runs["whole"].computing - slope * batch
    if slope <= 0 or fixed < 0:  # within the noise: all of it is in proportion
        return Pace(images_per_second=batch / runs["whole"].computing)
    return Pace(images_per_second=1 / slope, update_seconds=fixed)


def _cluster(runs: dict[str, Run], demand: Demand, whole: float, empty: float) -> Cluster:
    """This machine as a cluster of one host. All of the making of images stands in one figure, that of crops."""
    batch, steps = demand.work.batch_size, 2 * (WORKERS - 1)
    buckets = bucket_count(demand.gradient_bytes)
    moving = max(whole - buckets * empty, 1e-9)
    making = max(runs["whole"].seconds - runs["whole"].computing, 1e-9) / batch
    crops = demand.crop_pixels / making / 1e6
    return Cluster(
        device="cpu",
        nodes=1,
        gpus_per_node=WORKERS,
        peak_tflops=batch / runs["whole"].computing * demand.work.flops_of_a_view / 1e12,
        mfu=1,
        contention=max(1.0, runs["beside"].computing / runs["half"].computing),
        straggling=runs["beside"].deviation,
        overlap=0,
        intra_bandwidth=steps * demand.gradient_bytes / WORKERS / moving / 1e9,
        intra_latency=empty / steps,
        inter_bandwidth=NO_LIMIT,
        cores_per_node=os.cpu_count() or 1,
        jpeg_megapixels=NO_LIMIT,
        png_megapixels=NO_LIMIT,
        released_megapixels=crops,
        light_megapixels=crops,
        storage_node_bandwidth=NO_LIMIT,
        checkpoint_bandwidth=NO_LIMIT,
    )


def _show(runs: dict[str, Run], demand: Demand, pace: Pace, cluster: Cluster, whole: float, launcher: str) -> None:
    batch = demand.work.batch_size
    paces = Paces({demand.name: pace})
    together = simulate_stage(demand, cluster, paces).update_seconds
    alone = simulate_stage(demand, cluster.model_copy(update={"gpus_per_node": 1}), paces).update_seconds
    table = Table(box=None)
    for column in ("", "ms an update", "images / s", "speed-up"):
        table.add_column(column, justify="right" if column else "left")

    def row(name: str, seconds: float, base: float, share: int = batch) -> None:
        table.add_row(name, f"{1000 * seconds:.1f}", f"{share / seconds:.1f}", f"{base / seconds:.2f} ×")

    row(f"one worker ({launcher})", runs["one"].seconds, runs["one"].seconds)
    row(f"two workers ({launcher})", runs["two"].seconds, runs["one"].seconds)
    row("two side by side, nothing exchanged", runs["beside"].seconds, runs["whole"].seconds)
    row("predicted, one", alone, alone)
    row("predicted, two", together, alone)
    console = Console(highlight=False)
    console.print(table)
    found, foreseen = runs["one"].seconds / runs["two"].seconds, alone / together
    console.print(f"Prediction against measurement: time of two {together / runs['two'].seconds - 1:+.0%}, ", end="")
    console.print(f"speed-up {foreseen / found - 1:+.0%}")
    console.print(
        f"An exchange of {demand.gradient_bytes / 1e6:.1f} MB takes {1000 * whole:.1f} ms; an update has "
        f"{1000 * pace.update_seconds:.1f} ms that no worker is spared; side by side each is {cluster.contention:.2f} × slower; "
        f"an update's time deviates by {cluster.straggling:.0%}. Load of the machine: {os.getloadavg()[0]:.1f} on "
        f"{os.cpu_count()} cores.",
        soft_wrap=True,
    )


if __name__ == "__main__":
    typer.run(main)
