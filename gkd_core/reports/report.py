"""The matrix for people: CSVs, a JSON with every score's protocol, a heatmap, a radar, a page of text and a page of HTML."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from gkd_core.files import atomic_file
from gkd_core.records import ScoreTable
from gkd_core.reports.charts import save_heatmap, save_radar
from gkd_core.reports.comparability import seen_in_the_field
from gkd_core.reports.comparison import Comparison
from gkd_core.reports.findings import description, findings, headline
from gkd_core.reports.page import write_page
from gkd_core.reports.rows import Row, matrix_lines, paper_mean_lines, pool

COLUMNS = ("method", "teacher", "student", "seed", "benchmark", "domain", "miou")
FRACTION = "label_fraction"  # a column of its own only where labels were left out


def write_report(table: ScoreTable, folder: Path) -> None:
    """Write `matrix.csv`, `matrix.json`, `matrix.png`, `classes.csv`, `summary.md`, `report.html` and, where there are three
    target domains, `radar.png` into a folder."""
    write_csv(table, folder / "matrix.csv")
    write_classes(table, folder / "classes.csv")
    table.write(folder / "matrix.json")
    rows = pool(table)
    save_heatmap(rows, folder / "matrix.png")
    save_radar(rows, folder / "radar.png")
    with atomic_file(folder / "summary.md") as temporary:
        temporary.write_text(summary(table, rows), encoding="utf-8")
    write_page(Comparison.of_table(table), folder / "report.html")


def write_csv(table: ScoreTable, path: Path) -> None:
    """One line a score; mIoU in percent with two decimals."""
    further = (FRACTION,) if any(score.label_fraction != 1 for score in table.scores) else ()
    with atomic_file(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow([*COLUMNS, *further])
        for score in table.scores:
            line = [score.method, score.teacher, score.student, score.seed, score.benchmark, score.domain, f"{score.miou:.2f}"]
            writer.writerow([*line, f"{score.label_fraction:g}"] if further else line)


def summary(table: ScoreTable, rows: Sequence[Row]) -> str:
    """The matrix as Markdown, with what the numbers are and what they show."""
    seeds = sorted({score.seed for score in table.scores})
    lines = [
        "# Cross-domain matrix",
        "",
        f"mIoU in percent. Seeds: {', '.join(map(str, seeds))}"
        + (" (mean ± standard deviation over seeds)." if len(seeds) > 1 else "."),
        f"Selection: {', '.join(sorted({score.protocol.selection for score in table.scores}))}; "
        "no target was looked at before it was scored.",
        *seen_in_the_field([(score.method, [score]) for score in table.scores]),
        "",
        *matrix_lines(rows),
        "",
        *_paper_means(rows),
        *(f"- **{row.label}**: {text}." for row in rows if (text := description(row)) is not None),
        "",
        *headline(rows),
        *findings(rows),
    ]
    return "\n".join(lines).rstrip() + "\n"


def _paper_means(rows: Sequence[Row]) -> list[str]:
    lines = paper_mean_lines(rows)
    said = "The paper's means: G of Cityscapes, BDD100K and Mapillary, A of ACDC's four, P of Potsdam IRRG and Vaihingen."
    return [said, "", *lines, ""] if lines else []


CLASS_COLUMNS = ("method", "teacher", "student", "seed", "label_fraction", "benchmark", "domain", "class", "iou")


def write_classes(table: ScoreTable, path: Path) -> None:
    """One line a score and class; IoU in percent with two decimals, empty where the class has no pixels."""
    with atomic_file(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(CLASS_COLUMNS)
        for score in table.scores:
            facts = [score.method, score.teacher, score.student, score.seed, f"{score.label_fraction:g}"]
            for name, iou in score.class_iou.items():
                writer.writerow([*facts, score.benchmark, score.domain, name, "" if iou is None else f"{iou:.2f}"])
