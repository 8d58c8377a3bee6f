"""What datasets there are, as a table."""

from __future__ import annotations

from collections.abc import Sequence

from gkd_core.data.catalog.load import Catalog
from gkd_core.data.files.origin import Folders, Origin
from gkd_core.data.tables import new_table, print_table
from gkd_core.errors import DataError


def print_domains(catalog: Catalog, references: Sequence[str], origin: Origin) -> None:
    """Print one row for each `dataset/split`: its classes, its images as stated and as found at `origin`, its labels found,
    and its folder."""
    table = new_table("domain", "classes", ">stated", ">images", ">labels", "folder")
    for reference in references:
        entry, split = catalog.domain(reference)
        classes = "-" if entry.labels is None else catalog.taxonomy_of(entry).name
        stated = entry.split(split).count
        folder = f"{origin}/{origin.folder(entry, split)}"
        table.add_row(reference, classes, "-" if stated is None else str(stated), *_found(catalog, reference, origin), folder)
    print_table(table)


def _found(catalog: Catalog, reference: str, origin: Origin) -> tuple[str, str]:
    """How many images and labels there are: `none` where there is no image, `not whole` where a label is missing, `raw` where
    there are only the pictures that `gkd data prepare` makes them from."""
    entry, split = catalog.domain(reference)
    try:
        images = str(origin.count(entry, split))
    except DataError:
        return "none", "-" if entry.labels is None else "none"
    if entry.labels is None:
        return images, "-"
    if entry.is_raw and isinstance(origin, Folders):
        return images, "raw"
    try:
        return images, str(len(origin.pairs(entry, split)))
    except DataError:
        return images, "not whole"
