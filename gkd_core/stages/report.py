"""Stage `report`: the scores of all sources joined into the matrix."""

from __future__ import annotations

from gkd_core.files import atomic_folder
from gkd_core.paths import SCORES
from gkd_core.records import ScoreTable
from gkd_core.reports.report import write_report
from gkd_core.stages.work import Context


def report(context: Context) -> None:
    """Join the scores of all sources into the matrix."""
    tables = [ScoreTable.read(context.workspace / path / SCORES) for path in context.run.inputs]
    order = [benchmark.name for benchmark in context.recipe.benchmarks]
    scores = sorted((score for table in tables for score in table.scores), key=lambda score: order.index(score.benchmark))
    with atomic_folder(context.output) as folder:
        write_report(ScoreTable(scores=tuple(scores)), folder)
