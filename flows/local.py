"""Run a flow here, with a Prefect server that lives as long as the run: `python -m flows.local full-pipeline --profile demo`."""

import logging
import os
import shlex
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from flows.lifetime import end_in_time
from flows.server import prefect_server
from gkd_core.cli import run_command_line
from gkd_core.cli.run import INTERRUPTED
from gkd_core.errors import GkdError
from gkd_core.system.child_process import is_ending

DELIVERY_SECONDS, HASTY_DELIVERY_SECONDS = 10, 2
console = Console(highlight=False, markup=False)
app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__)

Profile = Annotated[str | None, typer.Option("--profile", help="Shipped profile to use instead of params.yaml.")]
Set = Annotated[list[str] | None, typer.Option("--set", help="One setting, such as distill_proxy.updates=200. Can be repeated.")]
Port = Annotated[int | None, typer.Option("--port", help="Port of the Prefect server; a free one where left out.")]


@app.command("full-pipeline")
def full_pipeline_command(profile: Profile = None, set_: Set = None, port: Port = None) -> None:
    """Run the flow gkd: every stage that is out of date, then the matrix. Example: --profile demo --set seed=1"""

    def run() -> dict[str, Any]:
        from flows.pipeline import full_pipeline

        return full_pipeline(profile=profile, overrides=set_ or [])

    _check_settings(profile, set_)
    _run_here(run, port)


@app.command("compare")
def compare_command(
    profile: Profile = None,
    set_: Set = None,
    seeds: Annotated[str, typer.Option(help="Seeds, with commas between.")] = "0,1,2",
    students: Annotated[
        list[str] | None, typer.Option("--student", help="A student, ARCH@WEIGHTS; that of the settings if not given.")
    ] = None,
    label_fractions: Annotated[
        list[float] | None, typer.Option("--label-fraction", help="A share of the labels; that of the settings if not given.")
    ] = None,
    at_once: Annotated[int, typer.Option("--at-once", min=1, help="Runs side by side.")] = 1,
    port: Port = None,
) -> None:
    """Run the comparison: all methods over several seeds, in one matrix. Example: --profile demo --seeds 0,1"""
    numbers = _seeds(seeds)

    def run() -> dict[str, Any]:
        from flows.compare import compare

        return compare(
            profile=profile,
            overrides=set_ or [],
            students=students or [],
            label_fractions=label_fractions or [],
            seeds=numbers,
            at_once=at_once,
        )

    _check_settings(profile, set_)
    _run_here(run, port)


@app.command("evaluate")
def evaluate_command(
    model: Annotated[str, typer.Argument(help="models:/NAME@ALIAS, models:/NAME/VERSION, runs:/RUN/MODEL, or a folder.")],
    domains: Annotated[
        list[str] | None,
        typer.Option("--domain", help="A dataset/split or a benchmark; those of the model's source if not given."),
    ] = None,
    profile: Profile = None,
    set_: Set = None,
    port: Port = None,
) -> None:
    """Measure a model on domains, without training. Example: models:/gkd-student-gta5@champion --domain acdc-night/val"""

    def run() -> dict[str, Any]:
        from flows.evaluate import evaluate

        return evaluate(model=model, domains=domains or [], profile=profile, overrides=set_ or [])

    _check_settings(profile, set_)
    _run_here(run, port)


def _seeds(text: str) -> list[int]:
    try:
        return [int(item) for item in text.split(",")]
    except ValueError:
        raise GkdError(f"--seeds {text}: expected whole numbers with commas between, such as 0,1,2") from None


def _check_settings(profile: str | None, overrides: list[str] | None) -> None:
    """Refuse bad settings before anything is started."""
    from gkd_core.paths import PARAMS
    from gkd_core.settings import load_settings

    load_settings(PARAMS, profile, overrides or [])


def _run_here(run: Callable[[], dict[str, Any]], port: int | None) -> None:
    _show(_run_against_server(run, port))


def _run_against_server(run: Callable[[], dict[str, Any]], port: int | None) -> dict[str, Any]:
    started = time.monotonic()
    with prefect_server(Path.cwd(), port) as server:
        os.environ.update(server.environment)
        end_in_time(f"gkd: {INTERRUPTED}", lambda: server.key_file.unlink(missing_ok=True))
        with console.status("starting the Prefect server"):
            import flows.pipeline  # noqa: F401  # loads while the server starts

            server.wait()
        console.print(f"Prefect is up after {time.monotonic() - started:.0f} s: {server.url} (sign in: {_near(server.key_file)})")
        with _own_words_only():
            try:
                result = run()
            finally:
                _deliver()
    console.print(f"\nThe flow took {time.monotonic() - started:.0f} s, start and stop of the Prefect server included.")
    return result


def _deliver() -> None:
    """Send the server what Prefect still has queued: once the server is gone it would retry for a minute."""
    from prefect.events.worker import EventsWorker
    from prefect.logging.handlers import APILogWorker

    for worker in (EventsWorker, APILogWorker):
        worker.drain_all(timeout=HASTY_DELIVERY_SECONDS if is_ending() else DELIVERY_SECONDS)


@contextmanager
def _own_words_only() -> Iterator[None]:
    """Show on the terminal what our flows say; what Prefect says of them goes to its server alone."""
    prefect = logging.getLogger("prefect")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s  %(message)s", "%H:%M:%S"))
    handler.addFilter(lambda record: Path(record.pathname).parent == Path(__file__).parent)
    propagated = prefect.propagate
    prefect.propagate = False
    prefect.addHandler(handler)
    try:
        yield
    finally:
        prefect.removeHandler(handler)
        prefect.propagate = propagated


def _show(result: dict[str, Any]) -> None:
    from gkd_core.records import ScoreTable
    from gkd_core.reports.terminal import print_matrix

    report = Path(result["report"])
    print_matrix(ScoreTable.read(report / "matrix.json"))
    console.print(
        f"Report:    {_near(report)}  (report.html, matrix.png, radar.png, matrix.csv, classes.csv, matrix.json, summary.md)"
    )
    if "mlflow" in result:
        command = shlex.join(["mlflow", "ui", "--backend-store-uri", str(result["mlflow"])])
        console.print(f"MLflow:    {command}   (run {result['mlflow_run'][:8]})", soft_wrap=True)
    if "workspace" in result:
        console.print(f"Workspace: {_near(Path(result['workspace']))}")


def _near(path: Path) -> Path:
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def main() -> None:
    """The command `python -m flows.local`."""
    run_command_line(app)


if __name__ == "__main__":
    main()
