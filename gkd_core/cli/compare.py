"""The command `gkd compare`: finished runs side by side, in the terminal and as a page."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gkd_core.files import scratch_folder
from gkd_core.paths import PARAMS

if TYPE_CHECKING:
    from gkd_core.reports.comparison import RunFacts

Runs = Annotated[
    list[str] | None,
    typer.Argument(metavar="[RUN]…", help="Ids or names of MLflow runs; that of a comparison stands for all its runs."),
]


def compare(
    runs: Runs = None,
    experiment: Annotated[str | None, typer.Option(help="MLflow experiment; that of params.yaml without it.")] = None,
    kind: Annotated[str | None, typer.Option(help="Kind of runs: pipeline, comparison, evaluation or redistill.")] = None,
    last: Annotated[int, typer.Option(min=1, help="How many of the newest runs, where none is named.")] = 20,
    where: Annotated[str | None, typer.Option(help="A filter of MLflow's, such as \"tags.method = 'gkd'\".")] = None,
    report: Annotated[
        list[Path] | None, typer.Option(help="Folder of a report (matrix.json) instead of MLflow. Can be repeated.")
    ] = None,
    latency: Annotated[
        list[Path] | None,
        typer.Option(help="Record of `gkd latency --output` of a student here, to stand beside its scores. Can be repeated."),
    ] = None,
    html: Annotated[Path | None, typer.Option(help="Also write the comparison as one self-contained page to this file.")] = None,
) -> None:
    """Put finished runs side by side: which student generalises best, and what it cost; best mean over targets first."""
    from gkd_core.errors import GkdError
    from gkd_core.predict.latency import read_latency
    from gkd_core.reports.comparison import Comparison
    from gkd_core.reports.latencies import with_latencies
    from gkd_core.reports.page import write_page
    from gkd_core.reports.terminal import print_comparison

    if report and (runs or experiment or kind or where):
        raise GkdError("--report: reads folders alone; leave out runs, --experiment, --kind and --where, or --report")
    if runs and (kind or where):
        raise GkdError(f"{runs[0]}: named runs are not searched for; leave out --kind and --where, or the names")
    # Pictures are fetched here, and are in the page by the time the folder goes.
    with scratch_folder("compare") as folder:
        found = _reports(report, bool(latency)) if report else _tracked(runs or [], experiment, kind, last, where, folder)
        comparison = Comparison.of_runs(found)
        if latency:
            comparison = with_latencies(comparison, [read_latency(path) for path in latency])
        print_comparison(comparison)
        if html is not None:
            write_page(comparison, html)
            typer.echo(f"wrote {html}")


def _reports(folders: list[Path], identified: bool) -> list[RunFacts]:
    """Each report as a run of which the scores are known and, where it is asked whose they are, the bundles beside it."""
    from gkd_core.records import ScoreTable
    from gkd_core.reports.comparison import RunFacts
    from gkd_core.stages.bundle import weights_beside

    found = []
    for folder in folders:
        scores = ScoreTable.read(folder / "matrix.json").scores
        found.append(RunFacts(str(folder), scores, weights=weights_beside(folder, scores) if identified else frozenset()))
    return found


def _tracked(
    names: list[str], experiment: str | None, kind: str | None, last: int, where: str | None, folder: Path
) -> list[RunFacts]:
    from gkd_core.settings import Settings, load_settings
    from gkd_core.storage.mlflow_store import existing_store
    from gkd_core.tracking.finished_runs import RunStore

    tracking = (load_settings(PARAMS, None, []) if PARAMS.exists() else Settings()).tracking
    store = RunStore(existing_store(tracking.uri, Path.cwd()), experiment or tracking.experiment)
    found = store.named(names) if names else store.recent(last, kind, where)
    return [store.facts(run, folder) for run in found]
