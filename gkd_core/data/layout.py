"""Whether a folder is laid out as its dataset's entry declares, told from the names of its files."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from gkd_core.data.catalog import Catalog
from gkd_core.data.entries import DatasetEntry
from gkd_core.data.reading import list_images, list_pairs
from gkd_core.data.shards import INDEX, ShardIndex
from gkd_core.errors import DataError


@dataclass(frozen=True)
class SplitFound:
    """A split that is there: its images, and its labels unless it is unlabelled."""

    domain: str
    images: int
    labels: int | None


def check_layout(catalog: Catalog, folder: str, place: Path) -> list[SplitFound]:
    """The splits that a folder holds, of every dataset whose entry names `folder`; a split of which nothing is there is left out.

    Args:
        folder: the folder of the entries, such as `acdc`.
        place: where that folder's content lies.

    Raises:
        DataError: no split is there, or one is there in part: a label or a listed image is missing.
    """
    if not place.is_dir():
        raise DataError(f"{place}: no such folder")
    found, absent = [], []
    for entry in entries_of(catalog, folder):
        here = entry.model_copy(update={"folder": "."})
        for split in here.splits:
            if _is_absent(here, place, split):
                absent.append(f"{entry.name}/{split}: {', '.join(here.image_patterns(split))}")
                continue
            labels = None if here.labels is None else len(list_pairs(here, place, split))
            found.append(SplitFound(f"{entry.name}/{split}", len(list_images(here, place, split)), labels))
    if not found:
        raise DataError(f"{place}: laid out unlike its catalog entry; no image of any split is there ({'; '.join(absent)})")
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
    """The datasets whose files lie in one folder: `acdc` has four, one a condition."""
    return [entry for entry in catalog.datasets.values() if PurePosixPath(entry.folder) == PurePosixPath(folder)]


def _is_absent(entry: DatasetEntry, place: Path, split: str) -> bool:
    return not any(next(place.glob(pattern), None) for pattern in entry.image_patterns(split))


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
