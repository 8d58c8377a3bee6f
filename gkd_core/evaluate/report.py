"""The matrix for people: a CSV, a JSON with every score's protocol, a heatmap, and a page of text."""

from __future__ import annotations

import csv
import statistics
from collections.abc import Sequence
from pathlib import Path

from gkd_core.evaluate.figures import save_heatmap
from gkd_core.evaluate.rows import Row, cells_of, pool, spread
from gkd_core.files import atomic_file
from gkd_core.methods import METHODS
from gkd_core.records import ScoreTable

COLUMNS = ("method", "teacher", "student", "seed", "benchmark", "domain", "miou")


def write_report(table: ScoreTable, folder: Path) -> None:
    """Write `matrix.csv`, `matrix.json`, `matrix.png` and `summary.md` into a folder."""
    write_csv(table, folder / "matrix.csv")
    table.write(folder / "matrix.json")
    rows = pool(table)
    save_heatmap(rows, folder / "matrix.png")
    with atomic_file(folder / "summary.md") as temporary:
        temporary.write_text(summary(table, rows), encoding="utf-8")


def write_csv(table: ScoreTable, path: Path) -> None:
    """One line a score; mIoU in percent with two decimals."""
    with atomic_file(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(COLUMNS)
        for score in table.scores:
            writer.writerow(
                [score.method, score.teacher, score.student, score.seed, score.benchmark, score.domain, f"{score.miou:.2f}"]
            )


def summary(table: ScoreTable, rows: Sequence[Row]) -> str:
    """The matrix as Markdown, with what the numbers are and what they show."""
    cells = cells_of(rows)
    seeds = sorted({score.seed for score in table.scores})
    lines = [
        "# Cross-domain matrix",
        "",
        f"mIoU in percent. Seeds: {', '.join(map(str, seeds))}"
        + (" (mean ± standard deviation over seeds)." if len(seeds) > 1 else "."),
        f"Selection: {', '.join(sorted({score.protocol.selection for score in table.scores}))}; "
        "no target was looked at before it was scored.",
        "",
        "| method | in-domain | targets, mean | " + " | ".join(f"{benchmark} {domain}" for benchmark, domain in cells) + " |",
        "|---" * (3 + len(cells)) + "|",
    ]
    for row in rows:
        values = [spread(row.cells[cell]) if cell in row.cells else "–" for cell in cells]
        lines.append(f"| {row.method} | {spread(row.in_domain)} | {spread(row.targets)} | " + " | ".join(values) + " |")
    lines += ["", *(f"- **{row.method}**: {METHODS[row.method].summary}." for row in rows if row.method in METHODS)]
    lines += ["", *findings(rows)]
    return "\n".join(lines).rstrip() + "\n"


def findings(rows: Sequence[Row]) -> list[str]:
    """What a comparison shows, in sentences that follow from the numbers alone."""
    means = {row.method: statistics.fmean(row.targets) for row in rows if row.targets}
    spreads = {row.method: statistics.stdev(row.targets) if len(row.targets) > 1 else 0.0 for row in rows}
    lines = []
    if "gkd" in means and "two-stage-mse" in means:
        gap = means["gkd"] - means["two-stage-mse"]
        noise = max(spreads["gkd"], spreads["two-stage-mse"])
        verdict = "beats" if gap > noise else "does not beat"
        lines.append(
            f"GKD {verdict} two-stage MSE here: {gap:+.1f} points on the mean over targets "
            f"(the larger standard deviation over seeds of the two is {noise:.1f})."
        )
    for method in ("gkd", "two-stage-mse"):
        for rival in ("no-kd", "single-stage-mse"):
            if method in means and rival in means:
                lines.append(f"{method} against {rival}: {means[method] - means[rival]:+.1f} points on the mean over targets.")
    return lines
