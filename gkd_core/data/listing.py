"""What datasets there are, as a table."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from gkd_core.data.catalog import Catalog
from gkd_core.data.origin import Origin
from gkd_core.errors import DataError


def print_domains(catalog: Catalog, references: Sequence[str], origin: Origin) -> None:
    """Print one row for each `dataset/split`: its folder, its classes, and its images as stated and as found at `origin`."""
    table = Table(box=None, pad_edge=False, header_style="")
    for title, side in (("domain", "left"), ("labels", "left"), ("stated", "right"), ("found", "right"), ("folder", "left")):
        table.add_column(title, justify="right" if side == "right" else "left")
    for reference in references:
        entry, split = catalog.domain(reference)
        labels = "-" if entry.labels is None else catalog.taxonomy_of(entry).name
        stated = entry.split(split).count
        folder = f"{origin}/{origin.folder(entry, split)}"
        table.add_row(reference, labels, "-" if stated is None else str(stated), _found(catalog, reference, origin), folder)
    Console().print(table)


def _found(catalog: Catalog, reference: str, origin: Origin) -> str:
    entry, split = catalog.domain(reference)
    try:
        return str(len(origin.images(entry, split)))
    except DataError:
        return "none"
