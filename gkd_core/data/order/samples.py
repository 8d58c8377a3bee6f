"""The samples that a worker is shown, update by update: in order, fetched ahead of use, decoded once where memory allows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np

from gkd_core.data.catalog.sources import Mix, whole
from gkd_core.data.files.blobs import DataFile, Member, ShardStore
from gkd_core.data.order.sampling import Visit
from gkd_core.data.order.streaming import Order, shards_ahead, training_order
from gkd_core.settings import StreamingSettings

LOOKS = 4  # times in a window that the stores are told anew
MEMORY_BYTES = 2 * 1024**3
Sample = TypeVar("Sample", np.ndarray, tuple[np.ndarray, np.ndarray])


@dataclass(frozen=True)
class Reading:
    """How one worker of a training reads its samples.

    Attributes:
        title: name of the training; with the seed, what every draw follows from.
        mix: the parts that the samples are of; None for a single one.
        streaming: the order to read shards in; None shuffles the whole dataset.
        updates: where training ends, so that no shard is fetched for later; None where that is not known.
        rank: which of the `workers` this one is: of each batch it is shown the samples `rank`, `rank + workers`, …
    """

    title: str
    seed: int
    mix: Mix | None = None
    streaming: StreamingSettings | None = None
    updates: int | None = None
    rank: int = 0
    workers: int = 1


class Samples(Generic[Sample]):
    """A worker's share of the samples of each update.

    Args:
        columns: files of the dataset, the images first, and their labels where there are any.
        repeats: times in a row that each sample comes.
        read: decodes a sample by its index.
        memory_bytes: room for decoded samples.

    Raises:
        SettingsError: the order does not go with batch, workers or stores.
        DataError: the files are not in shards, where shards are to be read in turn.
    """

    def __init__(
        self,
        columns: Sequence[Sequence[DataFile]],
        reading: Reading,
        batch_size: int,
        repeats: int,
        read: Callable[[int], Sample],
        memory_bytes: int = MEMORY_BYTES,
    ) -> None:
        self._images, self._reading, self._batch_size = columns[0], reading, batch_size
        mix, streaming = reading.mix or whole(len(self._images)), reading.streaming
        keys = (reading.title, reading.seed)
        self._order = training_order(self._images, mix, streaming, batch_size, reading.workers, repeats, *keys)
        self._ahead = ReadAhead(columns, self._order, reading, batch_size, repeats)
        self._decoded: SampleStore[Sample] = SampleStore(len(self._images), read, memory_bytes)

    def __getitem__(self, index: int) -> Sample:
        return self._decoded[index]

    def prefetch(self, update: int) -> None:
        """Have fetched what is needed from this update on."""
        self._ahead(update)

    def visits(self, update: int) -> list[Visit]:
        """The share of an update: dealt out one by one, so that repeats of an image lie on different workers."""
        return self._order.visits(update, self._batch_size)[self._reading.rank :: self._reading.workers]

    def files(self, update: int) -> list[DataFile]:
        """The image files of the share of an update."""
        return [self._images[visit.sample] for visit in self.visits(update)]


class ReadAhead:
    """What a worker's share of the coming updates will read, told to whoever holds it.

    Args:
        columns: files of the dataset in the order that `order` counts: the images, and their labels where there are any.

    Raises:
        SettingsError: a store cannot have as many shards at once as are read in turn.
    """

    def __init__(
        self, columns: Sequence[Sequence[DataFile]], order: Order, reading: Reading, batch_size: int, repeats: int
    ) -> None:
        self._columns, self._order = [files for files in columns if files and isinstance(files[0], Member)], order
        self._batch_size, self._reading = batch_size, reading
        workers, streaming = reading.workers, reading.streaming
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
        self._told = -1

    def __call__(self, update: int) -> None:
        """Say what is needed from this update on."""
        turn = update // self._stride
        if turn == self._told:
            return
        self._told = turn
        end, last, share = update + self._horizon + self._stride, self._reading.updates, self._reading
        updates = range(update, end if last is None else min(end, last))
        for files, stores in zip(self._columns, self._stores, strict=True):
            needed = shards_ahead(files, self._order, updates, self._batch_size, share.rank, share.workers)
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


class SampleStore(Generic[Sample]):
    """Samples by index, read by `read(index)` on first use and kept while they fit into `memory_bytes`."""

    def __init__(self, size: int, read: Callable[[int], Sample], memory_bytes: int = MEMORY_BYTES) -> None:
        self.size = size
        self._read: Callable[[int], Sample] = read
        self._free = memory_bytes
        self._kept: dict[int, Sample] = {}

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> Sample:
        if index in self._kept:
            return self._kept[index]
        sample = self._read(index)
        size = sample.nbytes if isinstance(sample, np.ndarray) else sum(part.nbytes for part in sample)
        if size <= self._free:
            self._free -= size
            self._kept[index] = sample
        return sample
