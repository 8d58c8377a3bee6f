"""What a dataset is made of: sizes of its images, and how much of each class its labels have."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich.table import Table

from gkd_core.data.catalog.taxonomy import IGNORE, Taxonomy
from gkd_core.data.tables import new_table, print_table
from gkd_core.data.verify.run import DomainFacts

Size = tuple[int, int]


@dataclass(frozen=True)
class DomainStats:
    """The figures of one `dataset/split`.

    Attributes:
        images: How many images it has, readable or not.
        labelled: How many of them have a label file that can be read and has a class or ignored pixels.
        sizes: (height, width) in pixels of each image that can be read, smallest area first.
        pixels: Label pixels of each train id, the ignored ones under 255.
        images_with: Labels that have a pixel of each train id.
    """

    domain: str
    taxonomy: Taxonomy | None
    images: int
    labelled: int
    sizes: tuple[Size, ...]
    pixels: dict[int, int]
    images_with: dict[int, int]

    @property
    def unreadable(self) -> int:
        """Images that cannot be read."""
        return self.images - len(self.sizes)

    def share(self, train_id: int) -> float | None:
        """A class's share of the pixels that have one; of `IGNORE`, its share of all. None where there are none to share."""
        everything = sum(self.pixels.values())
        whole = everything if train_id == IGNORE else everything - self.pixels.get(IGNORE, 0)
        return self.pixels.get(train_id, 0) / whole if whole else None

    def as_tree(self) -> dict[str, Any]:
        """All figures as plain values, classes by name."""
        rows = () if self.taxonomy is None else (*enumerate(self.taxonomy.classes), (IGNORE, "ignored"))
        extremes = {"smallest": self.sizes[0], "median": _median(self.sizes), "largest": self.sizes[-1]} if self.sizes else {}
        return {
            "images": self.images,
            "unreadable": self.unreadable,
            "labels": self.labelled if self.taxonomy else None,
            "sizes": {name: list(size) for name, size in extremes.items()},
            "classes": {
                name: {
                    "share": self.share(train_id),
                    "pixels": self.pixels.get(train_id, 0),
                    "images": self.images_with.get(train_id, 0),
                }
                for train_id, name in rows
            },
        }


def summarize(domain: DomainFacts) -> DomainStats:
    """The figures of a split whose files have been read."""
    sizes = sorted((fact.size for fact in domain.facts if fact.size is not None), key=lambda size: (size[0] * size[1], size))
    pixels: Counter[int] = Counter()
    for fact in domain.facts:
        pixels.update(fact.pixels)
    return DomainStats(
        domain=domain.survey.domain.reference,
        taxonomy=domain.survey.domain.taxonomy if domain.survey.domain.is_labelled else None,
        images=len(domain.facts),
        labelled=sum(bool(fact.pixels) for fact in domain.facts),
        sizes=tuple(sizes),
        pixels=dict(pixels),
        images_with=dict(Counter(train_id for fact in domain.facts for train_id in fact.pixels)),
    )


def print_stats(domains: Sequence[DomainStats]) -> None:
    """Print a table of the splits, and for each set of classes a table of shares, a column a split."""
    print_table(_sizes_table(domains))
    for taxonomy in dict.fromkeys(stats.taxonomy.name for stats in domains if stats.taxonomy is not None):
        of_taxonomy = [stats for stats in domains if stats.taxonomy is not None and stats.taxonomy.name == taxonomy]
        print(f"\n{taxonomy}: % of the pixels that have a class (number of images that have it)")
        print_table(_classes_table(of_taxonomy))


def _sizes_table(domains: Sequence[DomainStats]) -> Table:
    table = new_table("domain", ">images", ">unreadable", ">labels", ">smallest", ">median", ">largest")
    for stats in domains:
        sizes = [stats.sizes[0], _median(stats.sizes), stats.sizes[-1]] if stats.sizes else []
        labels = "-" if stats.taxonomy is None else str(stats.labelled)
        shown = [f"{height} x {width}" for height, width in sizes] or ["-"] * 3
        table.add_row(stats.domain, str(stats.images), str(stats.unreadable), labels, *shown)
    return table


def _classes_table(domains: Sequence[DomainStats]) -> Table:
    table = new_table("class", *(f">{stats.domain}" for stats in domains))
    taxonomy = domains[0].taxonomy
    assert taxonomy is not None
    for train_id, name in (*enumerate(taxonomy.classes), (IGNORE, "ignored, of all pixels")):
        table.add_row(name, *(_cell(stats, train_id) for stats in domains))
    return table


def _cell(stats: DomainStats, train_id: int) -> str:
    share, images = stats.share(train_id), stats.images_with.get(train_id, 0)
    return "none" if share is None or not images else f"{100 * share:.2f} ({images})"


def _median(sizes: Sequence[Size]) -> Size:
    return sizes[len(sizes) // 2]
