"""The rows of the matrix: a method's scores pooled over seeds, and the means that sum them up."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from gkd_core.methods import METHODS
from gkd_core.records import Score, ScoreTable

Cell = tuple[str, str]  # benchmark, domain


@dataclass(frozen=True)
class Row:
    """One method, its scores pooled over seeds: of each cell, and of the mean over all targets."""

    method: str
    student: str
    seeds: tuple[int, ...]
    cells: dict[Cell, tuple[float, ...]]
    targets: tuple[float, ...]
    in_domain: tuple[float, ...]


def pool(table: ScoreTable) -> list[Row]:
    """Rows in the order in which the methods are declared, the teacher first."""
    order = ["teacher", *(name for name in METHODS if name != "teacher")]
    found = sorted({(order.index(score.method), score.method, score.student) for score in table.scores})
    return [
        _row(method, student, [s for s in table.scores if (s.method, s.student) == (method, student)])
        for _, method, student in found
    ]


def target_mean(scores: Sequence[Score]) -> float:
    """Mean mIoU over the target domains; conditions of one benchmark weigh as much as whole benchmarks' only target."""
    return statistics.fmean(score.miou for score in scores if not score.in_domain)


def source_mean(scores: Sequence[Score]) -> float:
    """Mean mIoU over the sources' own validation splits. Benchmarks that share a source share its score, counted once."""
    return statistics.fmean({score.dataset: score.miou for score in scores if score.in_domain}.values())


def spread(values: Sequence[float]) -> str:
    """`mean ± standard deviation` of several seeds, or the one value."""
    if len(values) > 1:
        return f"{statistics.fmean(values):.1f} ± {statistics.stdev(values):.1f}"
    return f"{values[0]:.1f}" if values else "–"


def cells_of(rows: Sequence[Row]) -> list[Cell]:
    """All cells that some row has, in the order of the scores."""
    return list(dict.fromkeys(cell for row in rows for cell in row.cells))


def _row(method: str, student: str, scores: list[Score]) -> Row:
    seeds = tuple(sorted({score.seed for score in scores}))
    by_seed = [[score for score in scores if score.seed == seed] for seed in seeds]
    cells: dict[Cell, tuple[float, ...]] = {}
    for score in scores:
        cell = (score.benchmark, score.domain)
        cells[cell] = (*cells.get(cell, ()), score.miou)
    # A model measured on chosen domains may have no target among them, or none of its own.
    targets = tuple(target_mean(part) for part in by_seed if any(not score.in_domain for score in part))
    in_domain = tuple(source_mean(part) for part in by_seed if any(score.in_domain for score in part))
    return Row(method, student, seeds, cells, targets, in_domain)
