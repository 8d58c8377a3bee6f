"""Where the bytes of one image or label lie: in a file of their own, or inside a tar shard."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from gkd_core.errors import DataError


class ShardStore(Protocol):
    """Shards by name, wherever they lie. A store travels to worker processes: it can be pickled."""

    def path(self, shard: str) -> Path:
        """The shard as a local file, fetched first where it is not here yet; `DataError` where it cannot be had."""
        ...

    def prefetch(self, shards: Sequence[str]) -> None:
        """Take notice of what will be read next, in this order; may begin to fetch it, never waits."""
        ...

    def check_room(self, shards: int) -> None:
        """Raise `SettingsError` where it could not have so many shards here at once."""
        ...


@dataclass(frozen=True)
class LocalShards:
    """Shards in a folder of this machine."""

    folder: Path

    def path(self, shard: str) -> Path:
        return self.folder / shard

    def prefetch(self, shards: Sequence[str]) -> None:
        """Nothing to do: they are here."""

    def check_room(self, shards: int) -> None:
        """They are all here."""

    def __str__(self) -> str:
        return str(self.folder)


@dataclass(frozen=True)
class Member:
    """A file inside a shard: `size` bytes from byte `offset` on. `name` is its path within the dataset."""

    store: ShardStore
    shard: str
    name: str
    offset: int
    size: int

    def __str__(self) -> str:
        return f"{self.store}/{self.shard}:{self.name}"


DataFile = Path | Member


def read_bytes(file: DataFile) -> bytes:
    """The whole content of an image or label file.

    Raises:
        DataError: the file or its shard is missing, cannot be read, or is shorter than its index says.
    """
    try:
        if isinstance(file, Path):
            if not file.is_file() and file.exists():
                raise DataError(f"{file}: a folder, pipe or device and no file")  # a pipe would be waited for without end
            return file.read_bytes()
        with file.store.path(file.shard).open("rb") as stream:
            stream.seek(file.offset)
            content = stream.read(file.size)
    except FileNotFoundError:
        raise DataError(f"{file}: no such file") from None
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error.strerror or error})") from None
    if len(content) != file.size:
        raise DataError(f"{file}: the shard ends after {len(content)} of {file.size} bytes; it is truncated, fetch it again")
    return content


def identity(file: DataFile) -> str:
    """A line that changes when the file does, without reading it: path, size and time of change, or place within its shard.

    Shards never change under their name: theirs has the digest of what they hold.
    """
    if isinstance(file, Member):
        return f"{file} {file.offset} {file.size}"
    status = file.stat()
    return f"{file} {status.st_size} {status.st_mtime_ns}"
