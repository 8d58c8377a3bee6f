"""The matrix in the terminal."""

from __future__ import annotations

import sys

from rich.console import Console
from rich.table import Table

from gkd_core.evaluate.rows import cells_of, pool, spread
from gkd_core.records import ScoreTable

WIDTH = 120


def print_matrix(table: ScoreTable) -> None:
    """Print one block a benchmark: methods as columns would not fit, so domains run down and methods across."""
    rows = pool(table)
    grid = Table(title="mIoU, %", title_justify="left")
    grid.add_column("benchmark")
    grid.add_column("domain")
    for row in rows:
        grid.add_column(row.method, justify="right")
    last = None
    for benchmark, domain in cells_of(rows):
        if last not in (None, benchmark):
            grid.add_section()
        values = [spread(row.cells.get((benchmark, domain), ())) for row in rows]
        grid.add_row(benchmark if benchmark != last else "", domain, *values)
        last = benchmark
    grid.add_section()
    grid.add_row("mean", "in-domain", *(spread(row.in_domain) for row in rows))
    grid.add_row("", "targets", *(f"[bold]{spread(row.targets)}[/bold]" for row in rows))
    # A file or a pipe has no width of its own, and wrapped cells would be hard to read there.
    (Console() if sys.stdout.isatty() else Console(width=WIDTH)).print(grid)
