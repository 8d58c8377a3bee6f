"""Whole folders to and from a prefix, several files at a time. What is there already is not moved again."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from gkd_core.errors import DataError
from gkd_core.files import is_ours, sweep
from gkd_core.messages import shown
from gkd_core.records import sha256_of
from gkd_core.storage.client import PATIENCE, Patience
from gkd_core.storage.download import SHA256, download_file
from gkd_core.storage.errors import explained
from gkd_core.storage.keys import Location, segments, target_file
from gkd_core.storage.upload import upload_file
from gkd_core.training.progress import progress

AT_ONCE = 4
Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Stored:
    """An object below a prefix: its key from there on, its size in bytes, and the entity tag that changes with its content."""

    name: str
    size: int
    etag: str = ""


@dataclass(frozen=True)
class Moved:
    """What a transfer of a folder came to: files in all, those moved now, and those without a SHA-256 to hold them against."""

    files: int
    moved: int
    unverified: int = 0


def list_objects(client: Any, place: Location) -> list[Stored]:
    """The objects below a prefix, by key; the empty ones that stand for folders are left out.

    Raises:
        DataError: there is no such bucket, nothing in it below the prefix, or a key that could not be a file's path here.
    """
    objects = objects_below(client, place)
    if not objects:
        raise DataError(f"{place}: no object there; check the address, and that its upload was finished")
    _check_names(place, [item.name for item in objects])
    return objects


def objects_below(client: Any, place: Location) -> list[Stored]:
    """As `list_objects`, of names that need not be files here, and empty where there is none.

    Raises:
        DataError: there is no such bucket.
        PlatformError: the store refuses or fails.
    """
    prefix = f"{place.key}/" if place.key else ""
    with explained(place, "list"):
        pages = client.get_paginator("list_objects_v2").paginate(Bucket=place.bucket, Prefix=prefix)
        found = [
            Stored(item["Key"].removeprefix(prefix), int(item["Size"]), item.get("ETag", ""))
            for page in pages
            for item in page.get("Contents", [])
        ]
    return sorted((item for item in found if item.size or not item.name.endswith("/")), key=lambda item: item.name)


def download_tree(client: Any, place: Location, root: Path, patience: Patience = PATIENCE) -> Moved:
    """Fetch all objects below a prefix into a folder; files of the right content that are there already stay.

    Raises:
        GkdError: as `list_objects` and `download_file`; or a link stands in the folder where a folder is needed. Files that
            were whole by then stay, nothing half-written does, and what a killed transfer has left of it goes.
    """
    objects = list_objects(client, place)
    sweep(root)

    def move(item: Stored, done: Callable[[int], None]) -> tuple[bool, bool]:
        target = target_file(root, item.name)
        if _is_here(client, place / item.name, target, item.size):
            done(item.size)
            return False, True
        receipt = download_file(client, place / item.name, target, patience=patience, received=done)
        return True, receipt.verified

    results = each(f"download {place}", objects, [item.size for item in objects], move)
    return Moved(len(results), sum(moved for moved, _ in results), sum(not verified for _, verified in results))


def upload_tree(client: Any, root: Path, place: Location, patience: Patience = PATIENCE, last: Iterable[str] = ()) -> Moved:
    """Send all files of a folder below a prefix; objects of the right content that are there already stay.

    Args:
        last: names of files, relative to the folder, that go when all others are there: an index that speaks of them.

    Raises:
        GkdError: as `upload_file`; or there is no file in the folder, or a link, or a name that S3 or another system
            would not keep.
    """
    found = (path for path in root.rglob("*") if path.is_symlink() or not path.is_dir())
    files = sorted(path for path in found if not is_ours(path))
    if not files:
        raise DataError(f"{root}: no file in it to upload")
    names = {path: path.relative_to(root).as_posix() for path in files}
    _check_names(place, sorted(names.values()))
    closing = set(last)

    def move(path: Path, done: Callable[[int], None]) -> bool:
        return upload_file(client, path, place / names[path], patience, done)

    first = [path for path in files if names[path] not in closing]
    then = [path for path in files if names[path] in closing]
    results = [
        moved for part in (first, then) for moved in each(f"upload {place}", part, [path.lstat().st_size for path in part], move)
    ]
    return Moved(len(results), sum(results))


def each(
    title: str, items: Sequence[Item], sizes: Sequence[int], move: Callable[[Item, Callable[[int], None]], Result]
) -> list[Result]:
    """`move` each item, several at a time, with progress in bytes; after the first error nothing new is begun."""
    if not items:
        return []
    lock, moved = threading.Lock(), 0
    with progress(f"{title} (bytes)", sum(sizes)) as advance, ThreadPoolExecutor(AT_ONCE) as pool:

        def done(size: int) -> None:
            nonlocal moved
            with lock:
                moved += size
                advance(moved)

        futures = [pool.submit(move, item, done) for item in items]
        try:
            return [future.result() for future in futures]
        finally:
            for future in futures:
                future.cancel()


def _is_here(client: Any, place: Location, target: Path, size: int) -> bool:
    """Whether the file has the object's content already, as far as the object's metadata tells."""
    if target.is_symlink() or not target.is_file() or target.stat().st_size != size:
        return False
    with explained(place, "download"):
        stated = client.head_object(Bucket=place.bucket, Key=place.key).get("Metadata", {}).get(SHA256)
    return stated is not None and stated == sha256_of(target)


def _check_names(place: Location, names: Sequence[str]) -> None:
    """Raise `DataError` unless all names can be files of one folder, on any system: none hostile, none a folder of another."""
    wanted = set(names)
    for name in names:
        parts = segments(name)
        for count in range(1, len(parts)):
            folder = "/".join(parts[:count])
            if folder in wanted:
                raise DataError(f"{place}: '{shown(folder)}' and '{shown(name)}' cannot both be files of one folder; rename one")
