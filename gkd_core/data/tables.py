"""Tables for people and for pipes."""

from __future__ import annotations

import sys

from rich.console import Console
from rich.table import Table

UNFOLDED = 10_000  # characters a line


def new_table(*titles: str) -> Table:
    """A plain table with these columns; a title that begins with `>` is of a column aligned on the right."""
    table = Table(box=None, pad_edge=False, header_style="")
    for title in titles:
        table.add_column(title.removeprefix(">"), justify="right" if title.startswith(">") else "left")
    return table


def print_table(table: Table) -> None:
    """Print to stdout, folded to a terminal's width; where there is no terminal a row is a line."""
    console = Console(markup=False) if sys.stdout.isatty() else Console(width=UNFOLDED, markup=False)
    console.print(table)
