"""Tables for people and for pipes: of datasets, and as others fill them."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from gkd_core.data.catalog.load import Domain
from gkd_core.data.files.origin import Folders, Origin
from gkd_core.errors import DataError

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


def print_domains(domains: Sequence[Domain], origin: Origin) -> None:
    """Print one row for each `dataset/split`: its classes, its images as stated and as found at `origin`, its labels found,
    and its folder."""
    table = new_table("domain", "classes", ">stated", ">images", ">labels", "folder")
    for domain in domains:
        classes = domain.taxonomy.name if domain.is_labelled else "-"
        stated = "-" if domain.rule.count is None else str(domain.rule.count)
        table.add_row(domain.reference, classes, stated, *_found(domain, origin), f"{origin}/{origin.folder(domain)}")
    print_table(table)


def _found(domain: Domain, origin: Origin) -> tuple[str, str]:
    """How many images and labels there are: `none` where there is no image, `not whole` where a label is missing, `raw` where
    there are only the pictures that `gkd data prepare` makes them from."""
    try:
        images = str(origin.count(domain))
    except DataError:
        return "none", "none" if domain.is_labelled else "-"
    if not domain.is_labelled:
        return images, "-"
    if domain.entry.is_raw and isinstance(origin, Folders):
        return images, "raw"
    try:
        return images, str(len(origin.pairs(domain)))
    except DataError:
        return images, "not whole"
