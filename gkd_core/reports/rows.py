"""The rows of the matrix: a student's scores pooled over seeds, and the means that sum them up."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from gkd_core.methods import METHODS
from gkd_core.records import Score, ScoreTable

Cell = tuple[str, str]  # benchmark, domain
IN_DOMAIN = "in-domain"

# The paper's means, by the names of its tables' columns: a mean over all targets would count ACDC four times.
PAPER_MEANS: dict[str, tuple[Cell, ...]] = {
    "avg G": (("G2C", "cityscapes"), ("G2B", "bdd100k"), ("G2M", "mapillary")),
    "avg A": tuple(("C2A", weather) for weather in ("night", "snow", "fog", "rain")),
    "avg P": (("P2R", "potsdam-irrg"), ("P2R", "vaihingen-irrg")),
}


class RowKey(NamedTuple):
    """What scores of one row have in common.

    Attributes:
        trained_encoder: stage two trained the encoder although the method leaves it frozen: the ablation.
    """

    method: str
    student: str
    label_fraction: float
    trained_encoder: bool


@dataclass(frozen=True)
class Row:
    """One way to a student, its scores pooled over seeds: of each cell, and of the means over all domains.

    Attributes:
        label: its name among the rows that it stands with: the method, and of the rest what differs between them.
        cells: mIoU of each cell in percent, one a seed.
        targets: mean over the target domains, one a seed; empty where no target was measured.
        in_domain: mean over the sources' own validation splits, one a seed; empty where none was measured.
    """

    key: RowKey
    label: str
    seeds: tuple[int, ...]
    cells: dict[Cell, tuple[float, ...]]
    targets: tuple[float, ...]
    in_domain: tuple[float, ...]

    @property
    def method(self) -> str:
        return self.key.method

    @property
    def worst(self) -> Cell | None:
        """The target domain whose mean over seeds is lowest."""
        means = {cell: statistics.fmean(values) for cell, values in self.cells.items() if cell[1] != IN_DOMAIN}
        return min(means, key=means.__getitem__) if means else None

    @property
    def gaps(self) -> tuple[float, ...]:
        """What is lost away from home, one a seed: mean in-domain minus mean over targets."""
        if len(self.targets) != len(self.in_domain):
            return ()
        return tuple(home - away for home, away in zip(self.in_domain, self.targets, strict=True))

    def paper_mean(self, name: str) -> tuple[float, ...]:
        """One of `PAPER_MEANS`, one a seed; empty where a target was not measured, or not with every seed."""
        columns = [self.cells.get(cell, ()) for cell in PAPER_MEANS[name]]
        if any(len(values) != len(self.seeds) for values in columns):
            return ()
        return tuple(statistics.fmean(values) for values in zip(*columns, strict=True))

    def benchmark_targets(self, benchmark: str) -> tuple[float, ...]:
        """Mean over one benchmark's target domains, one a seed; empty where a domain lacks a seed."""
        columns = [values for (name, domain), values in self.cells.items() if name == benchmark and domain != IN_DOMAIN]
        if len({len(values) for values in columns}) != 1:
            return ()
        return tuple(statistics.fmean(values) for values in zip(*columns, strict=True))


def row_key(score: Score) -> RowKey:
    """The row that a score belongs to."""
    method = METHODS.get(score.method)  # type: ignore[call-overload]  # tables may come from elsewhere
    ablation = method is not None and method.freeze_encoder and score.encoder_frozen is False
    return RowKey(score.method, score.student, score.label_fraction, ablation)


def pool(table: ScoreTable) -> list[Row]:
    """Rows in the order in which the methods are declared, the teacher first, then any that are unknown here."""
    order = ["teacher", *(name for name in METHODS if name != "teacher")]
    keys = sorted(
        {row_key(score) for score in table.scores},
        key=lambda key: (order.index(key.method) if key.method in order else len(order), *key),
    )
    labels = labels_of(keys)
    return [_row(key, labels[key], [score for score in table.scores if row_key(score) == key]) for key in keys]


def labels_of(keys: Sequence[RowKey]) -> dict[RowKey, str]:
    """A name for each row: its method, and in parentheses what tells rows of one method apart."""
    labels = {}
    for key in keys:
        rivals = [other for other in keys if other.method == key.method]
        notes = []
        if len({other.student for other in rivals}) > 1:
            notes.append(key.student)
        if len({other.label_fraction for other in keys}) > 1:
            notes.append(f"{100 * key.label_fraction:g} % of labels")
        if key.trained_encoder:
            notes.append("encoder trained on")
        labels[key] = f"{key.method} ({', '.join(notes)})" if notes else key.method
    return labels


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


def benchmarks_of(rows: Sequence[Row]) -> list[str]:
    """All benchmarks that some row has, in the order of the scores."""
    return list(dict.fromkeys(benchmark for benchmark, _ in cells_of(rows)))


def paper_means_of(rows: Sequence[Row]) -> list[str]:
    """Names of the paper's means that some row has."""
    return [name for name in PAPER_MEANS if any(row.paper_mean(name) for row in rows)]


def _row(key: RowKey, label: str, scores: list[Score]) -> Row:
    seeds = tuple(sorted({score.seed for score in scores}))
    by_seed = [[score for score in scores if score.seed == seed] for seed in seeds]
    cells: dict[Cell, tuple[float, ...]] = {}
    for score in sorted(scores, key=lambda score: score.seed):
        cell = (score.benchmark, score.domain)
        cells[cell] = (*cells.get(cell, ()), score.miou)
    # A model measured on chosen domains may have no target among them, or none of its own.
    targets = tuple(target_mean(part) for part in by_seed if any(not score.in_domain for score in part))
    in_domain = tuple(source_mean(part) for part in by_seed if any(score.in_domain for score in part))
    return Row(key, label, seeds, cells, targets, in_domain)


def matrix_lines(rows: Sequence[Row]) -> list[str]:
    """The matrix as a Markdown table."""
    cells = cells_of(rows)
    names = " | ".join(f"{benchmark} {domain}" for benchmark, domain in cells)
    lines = [f"| method | in-domain | targets, mean | {names} |", "|---" * (3 + len(cells)) + "|"]
    for row in rows:
        values = [spread(row.cells.get(cell, ())) for cell in cells]
        lines.append(f"| {row.label} | {spread(row.in_domain)} | {spread(row.targets)} | " + " | ".join(values) + " |")
    return lines


def paper_mean_lines(rows: Sequence[Row]) -> list[str]:
    """The paper's means as a Markdown table; no lines where none of them was measured."""
    names = paper_means_of(rows)
    if not names:
        return []
    lines = [f"| method | {' | '.join(names)} |", "|---" * (1 + len(names)) + "|"]
    for row in rows:
        lines.append(f"| {row.label} | " + " | ".join(spread(row.paper_mean(name)) for name in names) + " |")
    return lines


def class_means(scores: Iterable[Score]) -> dict[RowKey, dict[str, dict[Cell, float]]]:
    """For each row of the matrix: class, then cell, to the mean over seeds; seeds without pixels of a class are left out."""
    values: dict[RowKey, dict[str, dict[Cell, list[float]]]] = {}
    for score in scores:
        for name, iou in score.class_iou.items():
            cells = values.setdefault(row_key(score), {}).setdefault(name, {})
            if iou is not None:
                cells.setdefault((score.benchmark, score.domain), []).append(iou)
    return {
        key: {name: {cell: statistics.fmean(ious) for cell, ious in cells.items()} for name, cells in classes.items()}
        for key, classes in values.items()
    }
