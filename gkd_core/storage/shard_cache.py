"""A folder of a node's local disk that holds shards up to a bound, for all processes of the node at once.

Files are named by their SHA-256, so that no name of a bucket becomes a name here. What keeps processes out of each
other's way are locks (flock) on open files, which go with the process that holds them, however it ends:

- `.lock`, held for moments: whoever makes room, or gives a file its name, does so alone.
- `<sha256>.claim`, held while a shard is fetched: the others wait, and find it there.
- `<sha256>.part`, exclusively by who writes it, from the start at its full size: its room is taken. It goes with a process
  that ends before it is whole; one that nobody holds was left by a process that was killed, and is removed when room is needed.
- `<sha256>.shard`, shared by all who read it: what is held is not evicted.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.util import Finalize
from pathlib import Path
from typing import BinaryIO

from gkd_core.errors import PlatformError
from gkd_core.storage.client import PATIENCE, Patience
from gkd_core.storage.download import Expected
from gkd_core.system.own import make_own_folder

SHARD, PART, CLAIM, LOCK = ".shard", ".part", ".claim", ".lock"
POLL_SECONDS = 0.05
AT_EXIT = 10  # priority of removing what is unfinished when a process ends; what begins more ends before, at a higher one

Fetch = Callable[[BinaryIO], object]


class Hold:
    """A locked open file; `release` closes it. A process that is forked meanwhile does not inherit the lock."""

    def __init__(self, path: Path, flags: int = 0) -> None:
        self.path = path
        self._descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | flags, 0o666)
        _HELD.add(self)

    @property
    def is_held(self) -> bool:
        return self._descriptor >= 0

    def lock(self, kind: int) -> bool:
        """Lock, or change the lock; says whether that could be had, which with `LOCK_NB` it need not."""
        try:
            fcntl.flock(self._descriptor, kind)
        except BlockingIOError:
            return False
        return True

    def facts(self) -> os.stat_result:
        return os.fstat(self._descriptor)

    def touch(self) -> None:
        os.utime(self._descriptor)

    def resize(self, size: int) -> None:
        os.ftruncate(self._descriptor, size)

    def stream(self) -> BinaryIO:
        """To read and write by, unbuffered: a forked process must have nothing to write out again."""
        return os.fdopen(self._descriptor, "r+b", buffering=0, closefd=False)

    def release(self) -> None:
        _HELD.discard(self)
        if self.is_held:
            os.close(self._descriptor)
            self._descriptor = -1


_HELD: set[Hold] = set()


def _forget_held() -> None:
    """In a forked process: close what the parent holds, whose locks would else last until both processes end."""
    for hold in list(_HELD):
        hold.release()


os.register_at_fork(after_in_child=_forget_held)


@dataclass(frozen=True)
class ShardCache:
    """The cache: a plain value, as all of its state lies in the folder.

    Attributes:
        folder: where they lie; `~` is the home of whoever reads.
        limit: bytes that its files have together at most, those on their way included.
    """

    folder: Path
    limit: int
    patience: Patience = PATIENCE

    def hold(self, shard: Expected, fetch: Fetch) -> Hold:
        """The shard's file, held against eviction, and fetched first where it is not here. Bounded in time.

        Args:
            fetch: writes the whole shard into the stream that it is given, or raises.

        Raises:
            PlatformError: there is no room for it, as all is in use; or the folder is not this user's own or cannot be written
                to.
            GkdError: what `fetch` raised.
        """
        with self._writable():
            found = self._find(shard)
            if found is not None:
                return found
            with self._claim(shard) as claim:
                self._wait_for(claim, shard)
                return self._find(shard) or self._fetched(shard, fetch)

    def bring(self, shard: Expected, fetch: Fetch) -> None:
        """Have the shard here, unless another process is fetching it already; raises as `hold` does."""
        with self._writable():
            found = self._find(shard)
            if found is not None:
                found.release()
                return
            with self._claim(shard) as claim:
                if claim.lock(fcntl.LOCK_EX | fcntl.LOCK_NB):
                    (self._find(shard) or self._fetched(shard, fetch)).release()

    @contextmanager
    def _writable(self) -> Iterator[None]:
        """The folder is there; what the disk refuses in the block is said."""
        try:
            make_own_folder(self._home, "set compute.shard_cache to a folder of this user's own", closed=False)
            yield
        except OSError as error:
            raise PlatformError(
                f"{self.folder}: shards cannot be kept there ({error.strerror or error}); "
                "set compute.shard_cache to a folder with room for compute.shard_cache_bytes"
            ) from None

    def _find(self, shard: Expected) -> Hold | None:
        try:
            hold = Hold(self._path(shard, SHARD))
        except FileNotFoundError:
            return None
        hold.lock(fcntl.LOCK_SH)
        facts = hold.facts()
        if facts.st_nlink == 0 or facts.st_size != shard.size:  # evicted just now; or cut short when the machine crashed
            hold.release()
            return None
        hold.touch()
        return hold

    def _fetched(self, shard: Expected, fetch: Fetch) -> Hold:
        part = self._reserve(shard)
        # A process may end while a thread of it is here. (A forked one ends without `atexit`, but not without this.)
        unfinished = Finalize(None, part.path.unlink, (True,), exitpriority=AT_EXIT)
        try:
            fetch(part.stream())
            with self._alone():
                part.path = part.path.replace(self._path(shard, SHARD))
                part.lock(fcntl.LOCK_SH)
            return part
        except BaseException:
            with self._alone():
                part.path.unlink(missing_ok=True)
            part.release()
            raise
        finally:
            unfinished.cancel()

    def _reserve(self, shard: Expected) -> Hold:
        """An empty file of the shard's size, once there is room for it."""
        deadline = self.patience.deadline(shard.size)
        while True:
            with self._alone():
                if self._make_room(shard.size):
                    part = Hold(self._path(shard, PART), os.O_CREAT | os.O_TRUNC)
                    part.lock(fcntl.LOCK_EX)
                    part.resize(shard.size)
                    return part
            if time.monotonic() > deadline:
                raise PlatformError(
                    f"{self.folder}: no room for {shard.size} bytes within compute.shard_cache_bytes ({self.limit}): "
                    "all shards in it are in use; raise it, or use fewer loaders"
                )
            time.sleep(POLL_SECONDS)

    def _make_room(self, size: int) -> bool:
        """Evict until so many bytes fit, the longest unused first; says whether they do."""
        entries = []
        for path in self._home.iterdir():
            if path.suffix in (SHARD, PART):
                facts = path.stat()
                entries.append((facts.st_mtime_ns, facts.st_size, path))
        used = sum(entry[1] for entry in entries)
        for _, taken, path in sorted(entries):
            if used + size <= self.limit:
                return True
            used -= taken if _evict(path) else 0
        return used + size <= self.limit

    @contextmanager
    def _claim(self, shard: Expected) -> Iterator[Hold]:
        """The file whose lock makes its holder the one process that fetches a shard."""
        claim = Hold(self._path(shard, CLAIM), os.O_CREAT)
        try:
            yield claim
        finally:
            claim.release()

    def _wait_for(self, claim: Hold, shard: Expected) -> None:
        deadline = self.patience.deadline(shard.size)
        while not claim.lock(fcntl.LOCK_EX | fcntl.LOCK_NB):
            if time.monotonic() > deadline:
                raise PlatformError(
                    f"{claim.path}: another process has been fetching this shard for too long; end it, then run again"
                )
            time.sleep(POLL_SECONDS)

    @property
    def _home(self) -> Path:
        """The folder as it is called on the machine that we are on now."""
        return self.folder.expanduser()

    @contextmanager
    def _alone(self) -> Iterator[None]:
        lock = Hold(self._home / LOCK, os.O_CREAT)
        try:
            lock.lock(fcntl.LOCK_EX)
            yield
        finally:
            lock.release()

    def _path(self, shard: Expected, suffix: str) -> Path:
        return self._home / f"{shard.sha256}{suffix}"


def _evict(path: Path) -> bool:
    """Remove a file unless somebody holds it."""
    hold = Hold(path)
    try:
        if not hold.lock(fcntl.LOCK_EX | fcntl.LOCK_NB):
            return False
        path.unlink()
        return True
    finally:
        hold.release()
