"""Telling the stores of shards what training will read next, so that they can fetch it ahead of use."""

from __future__ import annotations

from collections.abc import Sequence

from gkd_core.data.files.blobs import DataFile, Member, ShardStore
from gkd_core.data.files.streaming import Order, shards_ahead
from gkd_core.settings import StreamingSettings

LOOKS = 4  # times in a window that the stores are told anew


class ReadAhead:
    """What a worker's share of the coming updates will read, told to whoever holds it.

    Args:
        columns: files of the dataset in the order that `order` counts: the images, and their labels where there are any.
        updates: where training ends; nothing is said of what lies behind. None where that is not known.

    Raises:
        SettingsError: a store cannot have as many shards at once as are read in turn.
    """

    def __init__(
        self,
        columns: Sequence[Sequence[DataFile]],
        order: Order,
        streaming: StreamingSettings | None,
        batch_size: int,
        rank: int,
        workers: int,
        repeats: int,
        updates: int | None,
    ) -> None:
        self._columns, self._order = [files for files in columns if files and isinstance(files[0], Member)], order
        self._batch_size, self._rank, self._workers = batch_size, rank, workers
        self._stores = [_stores(files) for files in self._columns]
        shards = max(map(len, self._stores), default=1)
        # Without lanes any shard may be next; with them, those of a window of each of this worker's lanes.
        at_once = shards if streaming is None else min(shards, streaming.lanes // workers * streaming.window)
        for stores in self._stores:
            for store, held in _by_store(stores, list(stores)):
                store.check_room(min(at_once, len(held)))
        images = max(map(len, self._columns), default=0)
        window = repeats * images * at_once // shards * workers // batch_size
        self._horizon = max(1, window)
        self._stride = max(1, window // LOOKS)
        self._end, self._told = updates, -1

    def __call__(self, update: int) -> None:
        """Say what is needed from this update on."""
        turn = update // self._stride
        if turn == self._told:
            return
        self._told = turn
        end = update + self._horizon + self._stride
        updates = range(update, end if self._end is None else min(end, self._end))
        for files, stores in zip(self._columns, self._stores, strict=True):
            needed = shards_ahead(files, self._order, updates, self._batch_size, self._rank, self._workers)
            for store, shards in _by_store(stores, needed):
                store.prefetch(shards)


def _stores(files: Sequence[DataFile]) -> dict[str, ShardStore]:
    """The store of each shard."""
    return {file.shard: file.store for file in files if isinstance(file, Member)}


def _by_store(stores: dict[str, ShardStore], shards: Sequence[str]) -> list[tuple[ShardStore, list[str]]]:
    """The shards, in their order, by the store that has them."""
    parts: dict[int, tuple[ShardStore, list[str]]] = {}
    for shard in shards:
        store = stores[shard]
        parts.setdefault(id(store), (store, []))[1].append(shard)
    return list(parts.values())
