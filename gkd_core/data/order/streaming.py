"""An order of training with locality: shards are read one after the other, so that a machine holds few of them at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeVar

import torch

from gkd_core.data.catalog.sources import Mix
from gkd_core.data.files.blobs import DataFile, Member
from gkd_core.data.order.sampling import Visit, mixed_visits
from gkd_core.errors import DataError, SettingsError
from gkd_core.seeding import generator
from gkd_core.settings import StreamingSettings

EPOCHS_KEPT = 2  # a batch may straddle two
Item = TypeVar("Item")


class Order(Protocol):
    """Which samples an update looks at: a pure function of the update."""

    def visits(self, update: int, batch_size: int) -> list[Visit]:
        """The samples of an update; of several workers, each takes its share `visits[rank::workers]`."""
        ...


class Shuffled:
    """Permutations of the whole dataset, laid end to end, or of the parts of a mix (`mixed_visits`)."""

    def __init__(self, mix: Mix, repeats: int, *keys: int | str) -> None:
        self._mix, self._repeats, self._keys = mix, repeats, keys

    def visits(self, update: int, batch_size: int) -> list[Visit]:
        return mixed_visits(update, batch_size, self._mix, self._repeats, *self._keys)


class Streamed:
    """Lanes that each go through shards of their own, drawn from `keys`.

    Shard s belongs to lane s mod L, and place p of a batch is served by lane p mod L: where workers divide L, worker r of R has
    the lanes r, r + R, … and needs no shard of another worker. In each epoch of a lane its shards come in a new order; that
    is cut into windows of `window` shards, and the images of a window are shuffled together. Every image of a lane is seen
    once an epoch, or `repeats` times in a row. (Repeats of an image stay in their lane, and so on one worker.)

    Args:
        shards: number of the shard of each sample of the dataset.

    Raises:
        DataError: there are fewer shards than lanes.
    """

    def __init__(self, shards: Sequence[int], settings: StreamingSettings, repeats: int, *keys: int | str) -> None:
        held: dict[int, list[int]] = {shard: [] for shard in sorted(set(shards))}
        for sample, shard in enumerate(shards):
            held[shard].append(sample)
        self._settings, self._repeats, self._keys = settings, repeats, keys
        if len(held) < settings.lanes:
            raise DataError(
                f"data.streaming.lanes: {settings.lanes} lanes, but the dataset has {len(held)} shards; use fewer lanes, "
                "or prepare it with a smaller --shard-size"
            )
        dealt = list(held.values())
        self._lanes = [dealt[lane :: settings.lanes] for lane in range(settings.lanes)]
        self._sizes = [sum(map(len, lane)) for lane in self._lanes]
        self._orders: dict[tuple[int, int], list[int]] = {}

    def visits(self, update: int, batch_size: int) -> list[Visit]:
        count = self._settings.lanes
        turns = batch_size // count
        return [self._visit(place % count, update * turns + place // count) for place in range(batch_size)]

    def _visit(self, lane: int, position: int) -> Visit:
        epoch, place = divmod(position // self._repeats, self._sizes[lane])
        return Visit(self._order(lane, epoch)[place], epoch * self._repeats + position % self._repeats)

    def _order(self, lane: int, epoch: int) -> list[int]:
        if (lane, epoch) not in self._orders:
            while len(self._orders) >= EPOCHS_KEPT * len(self._lanes):
                del self._orders[next(iter(self._orders))]
            self._orders[lane, epoch] = self._drawn(lane, epoch)
        return self._orders[lane, epoch]

    def _drawn(self, lane: int, epoch: int) -> list[int]:
        draws = generator("lane", lane, epoch, *self._keys)
        shards, order = _shuffled(self._lanes[lane], draws), list[int]()
        for first in range(0, len(shards), self._settings.window):
            window = [sample for shard in shards[first : first + self._settings.window] for sample in shard]
            order += _shuffled(window, draws)
        return order


def training_order(
    files: Sequence[DataFile],
    mix: Mix,
    streaming: StreamingSettings | None,
    batch_size: int,
    workers: int,
    repeats: int,
    *keys: int | str,
) -> Order:
    """The order in which files are trained on; shards of several parts are dealt to the lanes together.

    Raises:
        SettingsError: batch, workers or the weights of a mix do not go with streaming.
        DataError: the files are not in shards, or in fewer than there are lanes.
    """
    if streaming is None:
        return Shuffled(mix, repeats, *keys)
    if batch_size % streaming.lanes or streaming.lanes % workers:
        raise SettingsError(
            f"data.streaming.lanes: {streaming.lanes} lanes for batches of {batch_size} on {workers} workers; "
            "lanes must divide the batch, and workers the lanes"
        )
    if mix.draws != mix.sizes:
        raise SettingsError("data.streaming: sees all images equally often; give the source's parts as a list, without weights")
    names = [shard_of(file) for file in files]
    numbers = {name: number for number, name in enumerate(sorted(set(names)))}
    return Streamed([numbers[name] for name in names], streaming, repeats, *keys)


def shards_ahead(files: Sequence[DataFile], order: Order, updates: range, batch_size: int, rank: int, workers: int) -> list[str]:
    """Names of the shards that a worker's share of these updates reads, each once, in the order in which they are needed.

    `files` are the images that `order` counts, or their labels in the same order.
    """
    needed: dict[str, None] = {}
    for update in updates:
        for visit in order.visits(update, batch_size)[rank::workers]:
            needed.setdefault(shard_of(files[visit.sample]))
    return list(needed)


def shard_of(file: DataFile) -> str:
    """Name of the shard that holds a file; `DataError` where it is in none."""
    if not isinstance(file, Member):
        raise DataError(f"{file}: not in a shard; data.streaming needs a dataset that gkd data prepare wrote")
    return file.shard


def _shuffled(items: Sequence[Item], draws: torch.Generator) -> list[Item]:
    return [items[place] for place in torch.randperm(len(items), generator=draws).tolist()]
