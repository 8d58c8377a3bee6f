"""What students take beside how they score: records of `gkd latency` put to the rows that they were measured of."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from gkd_core.errors import GkdError
from gkd_core.predict.latency import UNKNOWN, Latency, conditions_of
from gkd_core.reports.comparison import Comparison, Entry

# What times depend on beside the model; each record says its own precision and passes.
CONDITIONS = ("device", "processor", "torch", "size", "batch", "threads")


class Point(NamedTuple):
    """A student of the figure: its median latency in ms, and its mean mIoU over targets, one a seed."""

    label: str
    milliseconds: float
    targets: tuple[float, ...]


class Figure(NamedTuple):
    """What the figure shows, and what it cannot.

    Attributes:
        beside: what students were measured in turn with, such as their teacher, and its median latency in ms.
        without: labels of the rows that have no latency, or no target.
        conditions: under which it was measured, in words; of each record, where passes or precision differ.
    """

    points: tuple[Point, ...]
    beside: tuple[tuple[str, float], ...]
    without: tuple[str, ...]
    conditions: tuple[str, ...]


def with_latencies(comparison: Comparison, records: Sequence[Latency]) -> Comparison:
    """The comparison with each record at the row that has the student whose weights it was measured of.

    Raises:
        GkdError: a record is of a student in no row, two are of one row, or they were measured under different conditions.
    """
    for record in records[1:]:
        for key in CONDITIONS:
            first, other = getattr(records[0], key), getattr(record, key)
            if first != other:
                raise GkdError(
                    f"--latency: not measured alike ({key}: {_words(first)} and {_words(other)}), so not comparable; measure all "
                    "with `gkd latency` on one machine, with the same --size, --batch and --threads"
                )
    entries = list(comparison.entries)
    for record in records:
        place = _place(entries, record)
        if entries[place].latency is not None:
            raise GkdError(f"--latency: two records of {entries[place].row.label}; give one a row")
        entries[place] = replace(entries[place], latency=record)
    return replace(comparison, entries=tuple(entries))


def figure_of(comparison: Comparison) -> Figure | None:
    """The figure of a comparison; None where no row of it has a latency."""
    measured = [entry for entry in comparison.entries if entry.latency is not None]
    if not measured:
        return None
    shown = [entry for entry in measured if entry.row.targets]
    records = [entry.latency for entry in measured if entry.latency is not None]
    beside: dict[str, list[float]] = {}
    for record in records:
        if record.against is not None:
            beside.setdefault(record.against.words, []).append(1000 * record.against.median_seconds)
    return Figure(
        points=tuple(Point(entry.row.label, entry.cost("latency_ms") or 0.0, entry.row.targets) for entry in shown),
        beside=tuple((words, statistics.median(times)) for words, times in beside.items()),
        without=tuple(entry.row.label for entry in comparison.entries if entry not in shown),
        conditions=tuple(dict.fromkeys(map(conditions_of, records))),
    )


def lines_of(figure: Figure) -> list[str]:
    """What a reader has to know of the latencies, a sentence each."""
    lines = [f"Latency: median of a pass; {words}." for words in figure.conditions]
    if figure.without:
        lines.append(f"Without a latency, or a target, and so not in the figure: {', '.join(figure.without)}.")
    return lines


def _place(entries: Sequence[Entry], record: Latency) -> int:
    for place, entry in enumerate(entries):
        if any(record.model.sha256 in run.weights for run in entry.runs):
            return place
    digest = UNKNOWN if record.model.sha256 is None else record.model.sha256[:12]
    raise GkdError(
        f"--latency: {record.model.words} (sha256 {digest}) is the student of no run here; measure one of these runs', by its "
        "bundle (beside the report) or its address in MLflow"
    )


def _words(value: object) -> str:
    return " × ".join(map(str, value)) if isinstance(value, tuple) else str(value)
