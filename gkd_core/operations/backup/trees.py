"""Trees of files that are backed up and restored: a bucket, or a folder here."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from gkd_core.errors import DataError, TransientError
from gkd_core.files import atomic_file, is_ours, scratch_folder, sweep
from gkd_core.operations.bootstrap.buckets import BucketRules
from gkd_core.records import sha256_of
from gkd_core.storage.download import SHA256, download_file
from gkd_core.storage.errors import explained
from gkd_core.storage.keys import Location, target_file
from gkd_core.storage.trees import Stored, objects_below
from gkd_core.storage.upload import upload_file


class FileTree(Protocol):
    """Files below an address."""

    @property
    def address(self) -> str:
        """`s3://…` or `file://…`: what a backup knows the tree by."""

    def listed(self) -> list[Stored]:
        """What is there now, by name; the tag of each is empty where it says nothing of the content."""

    def sweep(self) -> None:
        """Remove what a killed restore has left half-written."""

    def local(self, item: Stored) -> Any:
        """A context in which the content of an item is a file here; gives its path."""

    def digest(self, item: Stored) -> str | None:
        """SHA-256 of an item, where it can be told."""

    @contextmanager
    def place(self, name: str) -> Iterator[Path]:
        """Give a path; what was written there when the block ends without an error takes the place of the item of that name."""


class BucketTree:
    """A bucket without its scratch, which is swept before anybody would restore it."""

    def __init__(self, client: Any, bucket: str) -> None:
        self._client, self._place = client, Location.parse(f"s3://{bucket}")
        self._scratch = f"{BucketRules().scratch_prefix}/"

    @property
    def address(self) -> str:
        return str(self._place)

    def listed(self) -> list[Stored]:
        return [item for item in objects_below(self._client, self._place) if not item.name.startswith(self._scratch)]

    def sweep(self) -> None:
        """Nothing: an object appears whole, or not at all."""

    @contextmanager
    def local(self, item: Stored) -> Iterator[Path]:
        place = self._place / item.name
        with scratch_folder("backup-object") as folder:
            path = folder / "content"
            download_file(self._client, place, path)
            if self._head(item.name).get("ETag", "") != item.etag:
                raise TransientError(f"{place}: it was replaced while it was read; back up again")
            yield path

    def digest(self, item: Stored) -> str | None:
        stated = self._head(item.name).get("Metadata", {}).get(SHA256)
        return None if stated is None else str(stated)

    @contextmanager
    def place(self, name: str) -> Iterator[Path]:
        with scratch_folder("restore-object") as folder:
            path = folder / "content"
            yield path
            upload_file(self._client, path, self._place / name)

    def _head(self, name: str) -> Any:
        place = self._place / name
        with explained(place, "look"):
            return self._client.head_object(Bucket=place.bucket, Key=place.key)


class FolderTree:
    """A folder here; one that is not there yet is empty."""

    def __init__(self, root: Path) -> None:
        self._root = root.resolve()

    @property
    def address(self) -> str:
        return self._root.as_uri()

    def listed(self) -> list[Stored]:
        found = (path for path in sorted(self._root.rglob("*")) if path.is_symlink() or not path.is_dir())
        paths = [path for path in found if not is_ours(path)]
        for path in paths:
            if path.is_symlink() or not path.is_file():
                raise DataError(f"{path}: no regular file; links and devices are not backed up, put the file itself there")
        return [Stored(path.relative_to(self._root).as_posix(), path.stat().st_size) for path in paths]

    def sweep(self) -> None:
        sweep(self._root)

    @contextmanager
    def local(self, item: Stored) -> Iterator[Path]:
        yield self._root / item.name

    def digest(self, item: Stored) -> str | None:
        return sha256_of(self._root / item.name)

    @contextmanager
    def place(self, name: str) -> Iterator[Path]:
        with atomic_file(target_file(self._root, name)) as temporary:
            yield temporary
