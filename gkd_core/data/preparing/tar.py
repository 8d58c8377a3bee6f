"""Tar files whose bytes depend on their members alone, and that are never visible half-written."""

from __future__ import annotations

import tarfile
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from gkd_core.data.files.shards import DIGEST_LENGTH, is_safe
from gkd_core.errors import DataError
from gkd_core.files import atomic_file, settle
from gkd_core.notes import remove
from gkd_core.records import sha256_of


class Place(NamedTuple):
    """A member of a tar file: its name, and where its content lies, in bytes."""

    name: str
    offset: int
    size: int


class Tar(NamedTuple):
    """A finished tar file."""

    path: Path
    sha256: str
    bytes: int
    places: list[Place]


def space_of(size: int) -> int:
    """Bytes that a member of this size takes up, its usual header included."""
    return tarfile.BLOCKSIZE + _padded(size)


def write_tar(folder: Path, stem: str, members: Iterable[tuple[str, bytes]]) -> Tar:
    """Write members, as (name, content), into `<folder>/<stem>-<digest of the file>.tar`.

    Owner, mode and time are the same for all, names too long for a plain header get a POSIX (pax) one: any tar program
    reads it, and the same members give the same bytes.

    Raises:
        DataError: the file cannot be written, as on a full disk; nothing of it is left then.
    """
    whole, places = folder / f".{stem}.tar", []
    try:
        with atomic_file(whole) as temporary, temporary.open("wb") as stream:
            for name, content in members:
                stream.write(_header(name, len(content)))
                places.append(Place(name, stream.tell(), len(content)))
                stream.write(content.ljust(_padded(len(content)), b"\0"))
            end = stream.tell() + 2 * tarfile.BLOCKSIZE
            stream.write(bytes(_padded(end, tarfile.RECORDSIZE) - stream.tell()))
        sha256, size = sha256_of(whole), whole.stat().st_size
        path = folder / f"{stem}-{sha256[:DIGEST_LENGTH]}.tar"
        settle(whole, path)
    except OSError as error:
        raise DataError(
            f"{folder / stem}: cannot be written ({error.strerror or error}); make room and run the same command again, "
            "it goes on from what is finished"
        ) from None
    return Tar(path, sha256, size, places)


def find_tar(folder: Path, stem: str) -> Tar | None:
    """The file that `write_tar` left under this stem, read through; None where there is none. A damaged one is removed."""
    for path in sorted(folder.glob(f"{stem}-*.tar")):
        sha256 = sha256_of(path) if path.is_file() else ""
        if sha256 and path.name == f"{stem}-{sha256[:DIGEST_LENGTH]}.tar":
            places = _places(path)
            if places is not None:
                return Tar(path, sha256, path.stat().st_size, places)
        remove(path)
    return None


def _places(path: Path) -> list[Place] | None:
    """The members of a tar file; None where it is none, or has what we never put into one."""
    try:
        with tarfile.open(path, "r:") as tar:
            members = list(tar)
    except (tarfile.TarError, ValueError, EOFError, OverflowError, RecursionError):
        return None
    size = path.stat().st_size
    if not all(info.isreg() and is_safe(info.name) and 0 <= info.offset_data <= size - info.size for info in members):
        return None
    return [Place(info.name, info.offset_data, info.size) for info in members]


def _header(name: str, size: int) -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.mode, info.mtime = size, 0o644, 0
    return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "strict")


def _padded(size: int, block: int = tarfile.BLOCKSIZE) -> int:
    return -(-size // block) * block
