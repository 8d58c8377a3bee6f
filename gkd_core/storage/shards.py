"""Shards that lie in a bucket, read as if they lay here: each is fetched into the node's cache when it is needed, or before."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache, partial
from multiprocessing.util import Finalize
from pathlib import Path
from typing import Any, BinaryIO

from gkd_core.data.files.shards import ShardIndex
from gkd_core.errors import DataError, GkdError, SettingsError
from gkd_core.storage.client import Patience, connect
from gkd_core.storage.download import Expected, fetch
from gkd_core.storage.keys import Location
from gkd_core.storage.shard_cache import AT_EXIT, Hold, ShardCache


class S3Shards:
    """The shards of one set below a prefix of a bucket, through a cache that all sets and processes of a node share.

    A `ShardStore`. It can be pickled, and forked: client, held files and the thread that fetches ahead are each process's own.

    Args:
        place: the set's prefix.
        index: the set's index, whose sizes and digests every fetched shard is held against.

    Raises:
        SettingsError: the largest shard alone is larger than the cache.
    """

    def __init__(self, place: Location, index: ShardIndex, cache: ShardCache) -> None:
        self._place, self._cache = place, cache
        self._shards = {shard.name: Expected(shard.bytes, shard.sha256) for shard in index.shards}
        self._own: _Own | None = None
        self.check_room(1)

    def path(self, shard: str) -> Path:
        """The shard in the cache. It stays there until this thread asks for another, however full the cache gets.

        Raises:
            DataError: the index has no such shard, or what is in the bucket is not what the index says.
            PlatformError: the store fails, or the cache has no room.
        """
        return self._process().reading.hold(shard, self._hold).path

    def prefetch(self, shards: Sequence[str]) -> None:
        """Begin to fetch shards in the background, in the order in which they will be needed, as far as they fit together.

        A later call takes the place of an earlier one. What fails is left to `path`, which tries again and says what is wrong.
        """
        self._process().ahead.want(self._that_fit(shards))

    def check_room(self, shards: int) -> None:
        """Raise `SettingsError` where the cache cannot hold so many of the largest shards at once."""
        needed = sum(sorted((shard.size for shard in self._shards.values()), reverse=True)[:shards])
        if needed > self._cache.limit:
            what = "the largest shard" if shards == 1 else f"{shards} shards, which are read in turn,"
            raise SettingsError(
                f"compute.shard_cache_bytes: {self._cache.limit} bytes, but {what} of {self} may need {needed}; raise it, "
                "set a smaller data.streaming.window, or prepare smaller shards"
            )

    def __str__(self) -> str:
        return str(self._place)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_own": None}

    def _hold(self, shard: str) -> Hold:
        return self._cache.hold(self._expected(shard), partial(self._download, shard))

    def _bring(self, shard: str) -> None:
        self._cache.bring(self._expected(shard), partial(self._download, shard))

    def _download(self, shard: str, stream: BinaryIO) -> None:
        patience = self._cache.patience
        fetch(_client(os.getpid(), patience), self._place / shard, stream, self._expected(shard), patience)

    def _expected(self, shard: str) -> Expected:
        if shard not in self._shards:
            raise DataError(f"{self}: its index has no shard '{shard}'")
        return self._shards[shard]

    def _that_fit(self, shards: Iterable[str]) -> list[str]:
        room, fitting = self._cache.limit, []
        for shard in dict.fromkeys(shards):
            room -= self._expected(shard).size
            if room < 0:
                break
            fitting.append(shard)
        return fitting

    def _process(self) -> _Own:
        if self._own is None or self._own.pid != os.getpid():
            self._own = _Own(self._bring)
        return self._own


@lru_cache(maxsize=1)
def _client(process: int, patience: Patience) -> Any:
    """One client a process: connections must not be shared with a parent."""
    return connect(patience)


class _Own:
    """What one process has open for a set."""

    def __init__(self, bring: Callable[[str], None]) -> None:
        self.pid = os.getpid()
        self.reading = _Reading()
        self.ahead = _Ahead(bring)


class _Reading(threading.local):
    """The shard that a thread reads from now."""

    shard: str | None = None
    held: Hold | None = None

    def hold(self, shard: str, hold: Callable[[str], Hold]) -> Hold:
        if self.held is not None and self.shard == shard:
            return self.held
        if self.held is not None:
            self.held.release()  # before the next is waited for, which may need its room
            self.held = None
        self.held, self.shard = hold(shard), shard
        return self.held


class _Ahead:
    """A thread that fetches what will be wanted."""

    def __init__(self, bring: Callable[[str], None]) -> None:
        self._bring = bring
        self._wanted: deque[str] = deque()
        self._latest: list[str] = []
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    def want(self, shards: list[str]) -> None:
        with self._changed:
            if shards == self._latest:
                return
            self._latest, self._wanted = shards, deque(shards)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="shards ahead", daemon=True)
                self._thread.start()
                Finalize(None, self._stop, exitpriority=AT_EXIT + 1)
            self._changed.notify()

    def _stop(self) -> None:
        with self._changed:
            self._wanted.clear()

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._wanted:
                    self._changed.wait()
                shard = self._wanted.popleft()
            try:
                self._bring(shard)
            except GkdError:
                # Not for this thread to tell: whoever needs the shard asks for it, and is told. Nor to go on against.
                with self._changed:
                    self._wanted.clear()
