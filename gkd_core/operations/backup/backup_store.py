"""Where backups lie: contents under their digests, and manifests. A folder or a prefix of a bucket."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any, Protocol

from gkd_core.errors import DataError
from gkd_core.files import atomic_file, scratch_folder, sweep
from gkd_core.operations.backup.manifest import NAME, Backup, decode
from gkd_core.records import sha256_of
from gkd_core.storage.download import Expected, download_file, fetch
from gkd_core.storage.errors import explained
from gkd_core.storage.keys import SCHEME, Location
from gkd_core.storage.trees import objects_below
from gkd_core.storage.upload import upload_file
from gkd_core.untrusted import given_path

CONTENT, MANIFESTS, SEALS = "content", "backups", "seals"
LISTED = "list what is there by: gkd infra backups"


class Shelf(Protocol):
    """Files by name, which appear whole or not at all."""

    def sizes(self) -> dict[str, int]:
        """Size in bytes of all that is there, by name."""

    def put(self, path: Path, name: str) -> None:
        """Store a file; its digest is checked."""

    def get(self, name: str, path: Path, expected: Expected) -> None:
        """Fetch a file; its digest is checked."""

    def check(self, name: str, expected: Expected) -> None:
        """Read a file and hold it against its digest."""

    def read(self, name: str) -> bytes:
        """The bytes of a small file."""

    def remove(self, name: str) -> None:
        """Remove a file."""

    def sweep(self) -> None:
        """Remove what killed processes have left half-written."""


class BackupStore:
    """The backups of one place."""

    def __init__(self, shelf: Shelf) -> None:
        self._shelf = shelf

    def __str__(self) -> str:
        return str(self._shelf)

    def names(self) -> list[str]:
        """Names of whole backups, the oldest first."""
        listed = (name.removeprefix(f"{MANIFESTS}/") for name in self._shelf.sizes() if name.startswith(f"{MANIFESTS}/"))
        return sorted(name for name in listed if NAME.fullmatch(name))

    def read(self, name: str) -> Backup:
        """A backup by name.

        Raises:
            DataError: there is none, or its manifest is damaged.
            PlatformError: a newer version wrote it.
        """
        return decode(self, name, self.manifest(name))

    def manifest(self, name: str) -> bytes:
        """The bytes of a backup's manifest.

        Raises:
            DataError: there is none of this name.
        """
        if name not in self.names():
            raise DataError(f"{self}: no backup {name}; {LISTED} {self}")
        return self._shelf.read(f"{MANIFESTS}/{name}")

    def seal(self, name: str) -> str | None:
        """What a backup was sealed with; None where it was not."""
        place = f"{SEALS}/{name}"
        return self._shelf.read(place).decode("ascii", "backslashreplace").strip() if place in self._shelf.sizes() else None

    def put_seal(self, name: str, seal: str) -> None:
        """Keep the seal of a backup."""
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / name
            file.write_text(f"{seal}\n", encoding="ascii")
            self._shelf.put(file, f"{SEALS}/{name}")

    def newest(self) -> str:
        """Name of the newest whole backup.

        Raises:
            DataError: there is none.
        """
        names = self.names()
        if not names:
            raise DataError(f"{self}: no complete backup there; one that was not finished has no manifest and does not count")
        return names[-1]

    def contents(self) -> dict[str, int]:
        """Size of all contents that are there, by digest, whoever names them."""
        sizes = self._shelf.sizes()
        return {name.rpartition("/")[2]: size for name, size in sizes.items() if name.startswith(f"{CONTENT}/")}

    def keep(self, path: Path, sha256: str) -> None:
        """Keep a file's content."""
        self._shelf.put(path, _place_of(sha256))

    def bring(self, sha256: str, size: int, path: Path) -> None:
        """Bring a content back into a file.

        Raises:
            DataError: it is missing or damaged.
        """
        self._shelf.get(_place_of(sha256), path, Expected(size, sha256))

    def check(self, sha256: str, size: int) -> None:
        """Read a content and hold it against its digest; raises as `bring`."""
        self._shelf.check(_place_of(sha256), Expected(size, sha256))

    def sweep(self) -> None:
        """Remove what killed backups have left half-written; whole contents stay, for the next to use."""
        self._shelf.sweep()

    def finish(self, backup: Backup) -> str:
        """Write the manifest: from now on it is a backup. Returns its name."""
        name, text = backup.encode()
        with scratch_folder("manifest") as folder:
            file = folder / name
            file.write_bytes(text)
            self._shelf.put(file, f"{MANIFESTS}/{name}")
        return name

    def forget(self, name: str) -> None:
        """Remove a backup's manifest and its seal; its contents stay."""
        self._shelf.remove(f"{MANIFESTS}/{name}")
        self._shelf.remove(f"{SEALS}/{name}")

    def drop(self, sha256: str) -> None:
        """Remove a content."""
        self._shelf.remove(_place_of(sha256))


def open_backup_store(address: str) -> BackupStore:
    """The backups below `s3://bucket/prefix`, or in a folder, which is made where it is not there, for its owner alone."""
    if address.startswith(SCHEME):
        from gkd_core.storage.client import connect

        return BackupStore(BucketShelf(connect(), Location.parse(address)))
    folder = given_path(address)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return BackupStore(FolderShelf(folder))


def _place_of(sha256: str) -> str:
    return f"{CONTENT}/{sha256[:2]}/{sha256}"


class FolderShelf:
    """A `Shelf` in a folder."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def __str__(self) -> str:
        return str(self._root)

    def sizes(self) -> dict[str, int]:
        files = (path for path in self._root.rglob("*") if path.is_file() and not path.name.startswith("."))
        return {path.relative_to(self._root).as_posix(): path.stat().st_size for path in files}

    def put(self, path: Path, name: str) -> None:
        digest = sha256_of(path)
        with atomic_file(self._root / name) as temporary:
            shutil.copyfile(path, temporary)
            if sha256_of(temporary) != digest:
                raise DataError(f"{path}: it changed while it was copied, or {self._root} does not keep it; back up again")

    def get(self, name: str, path: Path, expected: Expected) -> None:
        with atomic_file(path) as temporary:
            try:
                shutil.copyfile(self._root / name, temporary)
            except FileNotFoundError:
                raise _missing(self._root / name) from None
            self._hold(temporary, self._root / name, expected)

    def check(self, name: str, expected: Expected) -> None:
        if not (self._root / name).is_file():
            raise _missing(self._root / name)
        self._hold(self._root / name, self._root / name, expected)

    def read(self, name: str) -> bytes:
        return (self._root / name).read_bytes()

    def remove(self, name: str) -> None:
        (self._root / name).unlink(missing_ok=True)

    def sweep(self) -> None:
        sweep(self._root)

    def _hold(self, copy: Path, origin: Path, expected: Expected) -> None:
        size, digest = copy.stat().st_size, sha256_of(copy)
        if (size, digest) != (expected.size, expected.sha256):
            raise DataError(
                f"{origin}: damaged: {size} bytes with SHA-256 {digest[:12]}…, its backup says {expected.size} and "
                f"{expected.sha256[:12]}…; remove this file and back up again, or restore a backup that does not name it"
            )


class BucketShelf:
    """A `Shelf` below a prefix of a bucket."""

    def __init__(self, client: Any, place: Location) -> None:
        self._client, self._place = client, place

    def __str__(self) -> str:
        return str(self._place)

    def sizes(self) -> dict[str, int]:
        return {item.name: item.size for item in objects_below(self._client, self._place)}

    def put(self, path: Path, name: str) -> None:
        upload_file(self._client, path, self._place / name)

    def get(self, name: str, path: Path, expected: Expected) -> None:
        download_file(self._client, self._place / name, path, expected)

    def check(self, name: str, expected: Expected) -> None:
        with tempfile.TemporaryFile() as stream:
            fetch(self._client, self._place / name, stream, expected)

    def read(self, name: str) -> bytes:
        with tempfile.TemporaryFile() as stream:
            fetch(self._client, self._place / name, stream)
            stream.seek(0)
            return stream.read()

    def remove(self, name: str) -> None:
        place = self._place / name
        with explained(place, "remove"):
            self._client.delete_object(Bucket=place.bucket, Key=place.key)

    def sweep(self) -> None:
        """Nothing: an object appears whole, or not at all."""


def _missing(path: Path) -> DataError:
    return DataError(f"{path}: missing, and a backup names it; back up again, or restore a backup that does not name it")
