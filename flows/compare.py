"""The comparison: methods × students × shares of labels × seeds, and the teacher as the upper row, in one matrix."""

import contextvars
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from prefect import flow as prefect_flow
from prefect import get_run_logger
from prefect.runtime import flow_run as this_run
from pydantic import AfterValidator, Field

from flows.artifacts import places, show_page
from flows.flow_context import ray_cluster, run_tags, settings_of
from flows.hooks import HOOKS
from flows.pipeline import full_pipeline
from gkd_core.errors import GkdError
from gkd_core.files import atomic_folder
from gkd_core.messages import one_line
from gkd_core.paths import ARTIFACTS, REPORT
from gkd_core.records import Score, ScoreTable
from gkd_core.reports.report import write_report
from gkd_core.settings import MethodName, ProfileName, Settings, SettingsChanges
from gkd_core.settings.base import NonNegativeInt, PositiveInt, PositiveShare
from gkd_core.settings.encoder import parse_spec
from gkd_core.tracking.flow_runs import Tracking

COMPARISON = ARTIFACTS / "compare"
UPPER_ROW: MethodName = "teacher"


def _spec(text: str) -> str:
    parse_spec(text)
    return text


Methods = Annotated[list[MethodName], Field(min_length=1)]
Students = list[Annotated[str, AfterValidator(_spec)]]
Seeds = Annotated[list[NonNegativeInt], Field(min_length=1)]


@dataclass(frozen=True)
class Cell:
    """One run of a comparison; a student or share of labels that is None is that of the settings."""

    method: MethodName
    student: str | None
    label_fraction: float | None
    seed: int

    @property
    def overrides(self) -> list[str]:
        """What distinguishes it, as overrides of the settings."""
        lines = [f"method={self.method}", f"seed={self.seed}"]
        if self.label_fraction is not None:
            lines.append(f"learn_task.label_fraction={self.label_fraction}")
        if self.student is not None:
            lines.append(f"student={self.student}")
        return lines

    def __str__(self) -> str:
        return " ".join(self.overrides)


@prefect_flow(name="gkd", persist_result=False, **HOOKS)
def compare(
    profile: ProfileName | None = None,
    settings: SettingsChanges = SettingsChanges(),  # noqa: B008  # part of Prefect's form
    overrides: list[str] = [],  # noqa: B006
    methods: Methods = ["no-kd", "single-stage-mse", "two-stage-mse", "gkd"],  # noqa: B006
    students: Students = [],  # noqa: B006
    label_fractions: list[PositiveShare] = [],  # noqa: B006
    seeds: Seeds = [0, 1, 2],  # noqa: B006
    at_once: PositiveInt = 1,
) -> dict[str, Any]:
    """Run every method with every student, share of labels and seed, and write one report of them all.

    What cells have in common, such as stage 1a, is computed once. A cell that fails does not stop the others.

    Args:
        profile: Shipped profile to start from instead of the project's params.yaml.
        settings: Changes to it; what is left out stays as the profile or params.yaml has it.
        overrides: Single settings on top, each as key=value.
        methods: Methods to compare; the teacher's row is added, with the first seed.
        students: Students to compare, each as ARCH@WEIGHTS; empty for that of the settings.
        label_fractions: Shares of the labels to learn from, such as 1 and 0.125; empty for that of the settings.
        seeds: Seeds to run each of them with.
        at_once: Runs side by side. Stages on Ray take turns, as each fills the cluster.

    Returns:
        where the report lies, the MLflow run, and how many runs it holds: small, JSON-able.
    """
    project = Path.cwd()
    given = {"profile": profile, "settings": settings, "overrides": overrides}
    wanted = cells(methods, students, label_fractions, seeds)
    # All are looked at before the first is run, so that what cannot be is said at once.
    trees = [settings_of(given | {"overrides": [*overrides, *cell.overrides]}) for cell in wanted]

    def run(cell: Cell) -> list[Score]:
        result = full_pipeline(profile=profile, settings=settings, overrides=[*overrides, *cell.overrides])
        # Read at once: a later run may sweep this one's workspace.
        return list(ScoreTable.read(Path(result["workspace"]) / REPORT / "matrix.json").scores)

    tracking = Tracking(trees[0], project)
    tags = run_tags(project, "comparison")
    with tracking.group_run(f"comparison-{this_run.name}", tags) as group, ray_cluster(_widest(trees), project):
        scores, failed = run_cells(wanted, run, at_once)
        report = _publish(scores, project)
        if report is not None:
            tracking.log_comparison(group, ScoreTable(scores=tuple(scores)), report)
        _show(report, failed, tracking, group)
        if failed:
            raise GkdError("\n".join(f"{cell}: {_reason(error)}" for cell, error in failed.items()))
    return {"report": str(report), "mlflow": tracking.address, "mlflow_run": group, "runs": len(wanted)}


def cells(
    methods: Sequence[MethodName], students: Sequence[str], label_fractions: Sequence[float], seeds: Sequence[int]
) -> list[Cell]:
    """The runs of a comparison, each once: the teacher's for each share of labels, whatever the student, then the others."""
    fractions: list[float | None] = [*label_fractions] or [None]
    encoders: list[str | None] = [*students] or [None]
    upper = [Cell(UPPER_ROW, None, fraction, seeds[0]) for fraction in fractions]
    others = [
        Cell(method, student, fraction, seed)
        for student in encoders
        for fraction in fractions
        for method in methods
        for seed in seeds
    ]
    return list(dict.fromkeys([*upper, *others]))


def run_cells(
    wanted: Sequence[Cell], run: Callable[[Cell], list[Score]], at_once: int
) -> tuple[list[Score], dict[Cell, Exception]]:
    """Run cells, so many side by side; their scores in the order of the cells, and the errors of those that failed."""
    scores: dict[Cell, list[Score]] = {}
    failed: dict[Cell, Exception] = {}

    def attempt(cell: Cell) -> None:
        try:
            scores[cell] = run(cell)
        except Exception as error:
            get_run_logger().error("%s: %s", cell, _reason(error))
            failed[cell] = error

    if at_once == 1:  # here, where a signal reaches it
        for cell in wanted:
            attempt(cell)
    else:
        with ThreadPoolExecutor(at_once, thread_name_prefix="cell") as pool:
            # Each in a context of its own, by which Prefect and MLflow know whose the runs are.
            futures = [pool.submit(contextvars.copy_context().run, attempt, cell) for cell in wanted]
        for future in futures:
            future.result()
    return [score for cell in wanted for score in scores.get(cell, ())], {cell: failed[cell] for cell in wanted if cell in failed}


def _widest(trees: Sequence[Settings]) -> Settings:
    """The settings by which a cluster is sized that fits every cell."""
    return max(trees, key=lambda tree: max(tree.compute.workers, tree.evaluate.workers))


def _publish(scores: Sequence[Score], project: Path) -> Path | None:
    """Write the report of what was scored; None where nothing was."""
    if not scores:
        return None
    report = project / COMPARISON
    with atomic_folder(report) as temporary:
        write_report(ScoreTable(scores=tuple(scores)), temporary)
    return report


def _show(report: Path | None, failed: dict[Cell, Exception], tracking: Tracking, group: str) -> None:
    def page() -> str:
        matrix = "# No run succeeded" if report is None else (report / "summary.md").read_text(encoding="utf-8").rstrip()
        lines = [f"- {cell}: {_reason(error)}" for cell, error in failed.items()]
        if lines:
            lines = ["", "## Failed, and so not in the matrix", "", *lines]
        return "\n".join([matrix, *lines, "", *places(report, tracking, group)]) + "\n"

    show_page("comparison", page, get_run_logger())


def _reason(error: Exception) -> str:
    return one_line(error, 500)
