"""Whether a folder is laid out as its dataset's entry declares, told from the names of its files."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from gkd_core.data.catalog.entries import DatasetEntry
from gkd_core.data.catalog.load import Catalog
from gkd_core.data.files.folders import find
from gkd_core.data.files.reading import list_images, list_pairs
from gkd_core.data.files.shards import INDEX, ShardIndex
from gkd_core.errors import DataError


@dataclass(frozen=True)
class SplitFound:
    """A split that is there: its images, and its labels unless it is unlabelled."""

    domain: str
    images: int
    labels: int | None


def check_layout(entry: DatasetEntry, place: Path) -> list[SplitFound]:
    """The splits of a dataset that a folder holds; a split of which no image is there is left out.

    Args:
        place: where the content of the entry's folder lies, whatever it is called there.

    Raises:
        DataError: no split is there, or one is there in part: a label or a listed image is missing.
    """
    if not place.is_dir():
        raise DataError(f"{place}: no such folder")
    here = entry.model_copy(update={"folder": "."})
    there = [split for split in here.splits if not _is_absent(here, place, split)]
    if not there:
        patterns = dict.fromkeys(pattern for split in here.splits for pattern in here.image_patterns(split))
        raise DataError(f"{place}: laid out unlike dataset '{entry.name}': there is no image {' or '.join(patterns)}")
    found = []
    for split in there:
        labels = None if here.labels is None else len(list_pairs(here, place, split))
        found.append(SplitFound(f"{entry.name}/{split}", len(list_images(here, place, split)), labels))
    return found


def recognised(catalog: Catalog, folder: str, place: Path) -> list[SplitFound]:
    """The splits of all datasets of `folder` that a place holds whole; several entries may read one folder in their own ways.

    Raises:
        DataError: there are such datasets, and the place holds none of them whole; the message is that of the first.
    """
    found: list[SplitFound] = []
    faults: list[DataError] = []
    for entry in entries_of(catalog, folder):
        try:
            found += check_layout(entry, place)
        except DataError as error:
            faults.append(error)
    if faults and not found:
        raise faults[0]
    return found


def check_shards(place: Path) -> None:
    """Refuse shards that are not as their indexes say; a folder without an index passes.

    Raises:
        DataError: an index is damaged, or a shard is missing or has another size or content.
    """
    for file in sorted(place.rglob(INDEX)):
        for shard in ShardIndex.read(file).shards:
            shard.check(file.parent / shard.name)


def entries_of(catalog: Catalog, folder: str) -> list[DatasetEntry]:
    """The datasets whose files lie in one folder: `acdc` has one a condition, `cityscapes` one for each form of its labels."""
    return [entry for entry in catalog.datasets.values() if PurePosixPath(entry.folder) == PurePosixPath(folder)]


def _is_absent(entry: DatasetEntry, place: Path, split: str) -> bool:
    return not any(find(place, pattern, entry.any_suffix_case) for pattern in entry.image_patterns(split))


def check_links(folder: Path) -> None:
    """Refuse symbolic links in a folder: copies would have what lies outside it, or, where folders are links, not be whole.

    Raises:
        DataError: naming the first link.
    """
    for link in _links(folder.rglob("*")):
        raise DataError(
            f"{link}: a symbolic link (to {link.readlink()}); a dataset is pinned by its own files, so put the file there itself "
            f"(cp --recursive --dereference)"
        )


def _links(paths: Iterable[Path]) -> Iterable[Path]:
    return (path for path in paths if path.is_symlink())
