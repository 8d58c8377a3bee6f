"""The matrix for people: a CSV, a JSON with every score's protocol, a heatmap, and a page of text."""

from __future__ import annotations

import csv
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gkd_core.files import atomic_file
from gkd_core.methods import METHODS
from gkd_core.records import Score, ScoreTable

COLUMNS = ("method", "teacher", "student", "seed", "benchmark", "domain", "miou")
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


def write_report(table: ScoreTable, folder: Path) -> None:
    """Write `matrix.csv`, `matrix.json`, `matrix.png` and `summary.md` into a folder."""
    from gkd_core.evaluate.figures import save_heatmap

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
    means = {row.method: statistics.fmean(row.targets) for row in rows}
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
    return Row(method, student, seeds, cells, tuple(map(target_mean, by_seed)), tuple(map(source_mean, by_seed)))
