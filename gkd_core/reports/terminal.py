"""The matrix, and a comparison of runs, in the terminal."""

from __future__ import annotations

import sys

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from gkd_core.records import ScoreTable
from gkd_core.reports.comparison import COST_COLUMNS, Comparison, Entry, figure
from gkd_core.reports.findings import findings, headline
from gkd_core.reports.latencies import figure_of, lines_of
from gkd_core.reports.rows import benchmarks_of, cells_of, paper_means_of, pool, spread

WIDTH = 120
COMPARISON_WIDTH = 200  # where there is no terminal whose width counts
COSTS = (
    *("seconds", "gpu_hours", "parameters_millions", "teacher_parameters_millions", "gflops", "teacher_gflops"),
    *("latency_ms", "against_latency_ms"),
)


def print_matrix(table: ScoreTable) -> None:
    """Print one block a benchmark: methods as columns would not fit, so domains run down and methods across."""
    rows = pool(table)
    grid = Table(title="mIoU, %", title_justify="left")
    grid.add_column("benchmark")
    grid.add_column("domain")
    for row in rows:
        grid.add_column(escape(row.label), justify="right")
    last = None
    for benchmark, domain in cells_of(rows):
        if last not in (None, benchmark):
            grid.add_section()
        values = [spread(row.cells.get((benchmark, domain), ())) for row in rows]
        grid.add_row(escape(benchmark) if benchmark != last else "", escape(domain), *values)
        last = benchmark
    grid.add_section()
    grid.add_row("mean", "in-domain", *(spread(row.in_domain) for row in rows))
    grid.add_row("", "targets", *(f"[bold]{spread(row.targets)}[/bold]" for row in rows))
    for name in paper_means_of(rows):
        grid.add_row("", name, *(spread(row.paper_mean(name)) for row in rows))
    # A file or a pipe has no width of its own, and wrapped cells would be hard to read there.
    (Console() if sys.stdout.isatty() else Console(width=WIDTH)).print(grid)


def print_comparison(comparison: Comparison) -> None:
    """Print a line a row, best first: scores, what they cost, what the settings differ in, and what must be kept in mind."""
    console = Console() if sys.stdout.isatty() else Console(width=COMPARISON_WIDTH)
    console.print(_comparison_grid(comparison))
    for line in (*headline(comparison.rows), *findings(comparison.rows)):
        console.print(f"  {line}", markup=False, highlight=False)
    measured = figure_of(comparison)
    for line in () if measured is None else lines_of(measured):
        console.print(line, markup=False, highlight=False)
    keys = comparison.differing_settings()
    if keys:
        console.print(_settings_grid(comparison, keys))
    elif len(comparison.runs) > 1 and any(run.settings for run in comparison.runs):
        console.print("Settings: the same in all rows.")
    for run in comparison.runs:
        if run.unknown_costs:
            console.print(f"! {run.name}: unknown cost of {run.unknown_costs}", markup=False, style="yellow")
    for line in comparison.cautions:
        console.print(f"! {line}", markup=False, highlight=False, style="yellow")


def _comparison_grid(comparison: Comparison) -> Table:
    entries, benchmarks, papers = comparison.entries, benchmarks_of(comparison.rows), paper_means_of(comparison.rows)
    columns = sorted((column for column in COST_COLUMNS if column.metric in COSTS), key=lambda column: COSTS.index(column.metric))
    shown = [column for column in columns if any(entry.cost(column.metric) is not None for entry in entries)]
    several_fractions = len({row.key.label_fraction for row in comparison.rows}) > 1
    grid = Table(title="mIoU, %: benchmarks are means over their target domains", title_justify="left")
    grid.add_column("method")
    grid.add_column("student")
    heads = [
        *(["labels"] if several_fractions else []),
        "seeds",
        *map(escape, benchmarks),
        *papers,
        "targets\nmean",
        "worst\ndomain",
        "gap",
    ]
    for head in [*heads, *(f"{column.head}\n{column.unit}".strip().replace("'s ", "'s\n") for column in shown)]:
        grid.add_column(head, justify="right")
    for entry in entries:
        fraction = [f"{100 * entry.row.key.label_fraction:g} %"] if several_fractions else []
        costs = [figure(entry.cost(column.metric)) for column in shown]
        grid.add_row(*_scores(entry, benchmarks, papers, fraction), *costs)
    return grid


def _scores(entry: Entry, benchmarks: list[str], papers: list[str], fraction: list[str]) -> list[str]:
    row = entry.row
    worst = "–" if row.worst is None else f"{spread(row.cells[row.worst])}\n{' '.join(row.worst)}"
    means = [spread(row.benchmark_targets(name)) for name in benchmarks] + [spread(row.paper_mean(name)) for name in papers]
    facts = [row.label, row.key.student, *fraction, str(len(row.seeds)), *means]
    return [*map(escape, facts), f"[bold]{spread(row.targets)}[/bold]", escape(worst), spread(row.gaps)]


def _settings_grid(comparison: Comparison, keys: list[str]) -> Table:
    grid = Table(title="Settings that differ", title_justify="left")
    grid.add_column("setting")
    for entry in comparison.entries:
        grid.add_column(escape(entry.row.label), overflow="fold")
    for key in keys:
        grid.add_row(escape(key), *(escape(entry.setting(key)) for entry in comparison.entries))
    return grid
