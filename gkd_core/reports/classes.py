"""IoU of each class on each domain: what a mean over classes hides."""

from __future__ import annotations

import csv
import statistics
from collections.abc import Iterable
from pathlib import Path

from gkd_core.files import atomic_file
from gkd_core.records import Score, ScoreTable
from gkd_core.reports.rows import Cell, RowKey, row_key

COLUMNS = ("method", "teacher", "student", "seed", "label_fraction", "benchmark", "domain", "class", "iou")


def write_classes(table: ScoreTable, path: Path) -> None:
    """One line a score and class; IoU in percent with two decimals, empty where the class has no pixels."""
    with atomic_file(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(COLUMNS)
        for score in table.scores:
            facts = [score.method, score.teacher, score.student, score.seed, f"{score.label_fraction:g}"]
            for name, iou in score.class_iou.items():
                writer.writerow([*facts, score.benchmark, score.domain, name, "" if iou is None else f"{iou:.2f}"])


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
