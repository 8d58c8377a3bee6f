"""Samples at hand: stores of shards are told of all that is read before it is, and decoded samples are kept up to a bound."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gkd_core.data.catalog.sources import whole
from gkd_core.data.files.blobs import DataFile, Member
from gkd_core.data.order.samples import ReadAhead, Reading, SampleStore
from gkd_core.data.order.streaming import training_order
from gkd_core.errors import SettingsError
from gkd_core.settings import StreamingSettings


class Told:
    """A store that remembers what it was told."""

    def __init__(self, room: int = 1000) -> None:
        self.calls: list[list[str]] = []
        self.room = room

    def path(self, shard: str) -> Path:
        raise AssertionError("nothing is read here")

    def prefetch(self, shards: Sequence[str]) -> None:
        self.calls.append(list(shards))

    def check_room(self, shards: int) -> None:
        if shards > self.room:
            raise SettingsError(f"no room for {shards}")


def column(store: Told, kind: str, shards: int, images: int = 5) -> list[DataFile]:
    return [Member(store, f"{kind}-{i // images}", f"{i}.png", 0, 1) for i in range(shards * images)]


@settings(max_examples=40)
@given(
    lanes=st.sampled_from([1, 2, 4]),
    window=st.integers(1, 3),
    shards=st.integers(4, 12),
    turns=st.integers(1, 4),
    rank=st.integers(0, 1),
    loaders=st.integers(1, 3),
    streamed=st.booleans(),
)
def test_every_shard_is_told_before_it_is_read_and_no_other(
    lanes: int, window: int, shards: int, turns: int, rank: int, loaders: int, streamed: bool
) -> None:
    """Each loader makes every so manieth batch, and is told by itself."""
    streaming = StreamingSettings(lanes=2 * lanes, window=window) if streamed and shards >= 2 * lanes else None
    batch, updates = 2 * lanes * turns, 30
    for loader in range(loaders):
        images, labels = Told(), Told()
        files = [column(images, "images", shards), column(labels, "labels", shards)]
        order = training_order(files[0], whole(len(files[0])), streaming, batch, 2, 1, "title")
        reading = Reading("title", 0, streaming=streaming, updates=updates, rank=rank, workers=2)
        ahead = ReadAhead(files, order, reading, batch, 1)
        for update in range(loader, updates, loaders):
            ahead(update)
            read = {files[0][visit.sample].shard for visit in order.visits(update, batch)[rank::2]}  # type: ignore[union-attr]
            assert read <= set(images.calls[-1])
        share = {visit.sample for update in range(updates) for visit in order.visits(update, batch)[rank::2]}
        told = {shard for call in images.calls for shard in call}
        assert told <= {files[0][sample].shard for sample in share}  # type: ignore[union-attr]
        assert labels.calls == [[shard.replace("images", "labels") for shard in call] for call in images.calls]


def test_the_next_window_is_told_while_this_one_is_read() -> None:
    store, streaming = Told(), StreamingSettings(lanes=1, window=2)
    files = column(store, "images", 8)
    order = training_order(files, whole(40), streaming, 1, 1, 1, "title")
    ahead = ReadAhead([files], order, Reading("title", 0, streaming=streaming), 1, 1)
    for update in range(40):
        ahead(update)
    first, second = (
        {files[visit.sample].shard for update in updates for visit in order.visits(update, 1)}  # type: ignore[union-attr]
        for updates in (range(10), range(10, 20))
    )
    assert first == set(store.calls[0][:2])
    assert second & set(store.calls[1])
    assert len(store.calls) < 25, "not for each update"


def test_room_is_asked_for_at_the_start() -> None:
    streaming = StreamingSettings(lanes=4, window=3)
    files = column(Told(room=5), "images", 20)
    order = training_order(files, whole(100), streaming, 8, 2, 1, "title")
    with pytest.raises(SettingsError, match="no room for 6"):
        ReadAhead([files], order, Reading("title", 0, streaming=streaming, workers=2), 8, 1)
    with pytest.raises(SettingsError, match="no room for 20"):
        ReadAhead([files], order, Reading("title", 0, workers=2), 8, 1)


def test_files_of_their_own_need_nobody_to_be_told() -> None:
    files: list[DataFile] = [Path(f"{i}.png") for i in range(4)]
    ReadAhead([files], training_order(files, whole(4), None, 2, 1, 1), Reading("title", 0, updates=5), 2, 1)(0)


def test_samples_are_read_once_while_they_fit() -> None:
    read: list[int] = []

    def reading(index: int) -> tuple[np.ndarray, np.ndarray]:
        read.append(index)
        return np.full(8, index, dtype=np.uint8), np.full(2, index, dtype=np.uint8)

    store = SampleStore(4, reading, memory_bytes=25)
    for _ in range(3):
        for index in range(4):
            image, label = store[index]
            assert (image[0], label[0]) == (index, index)
    assert len(store) == 4
    assert read[:4] == [0, 1, 2, 3]
    assert read[4:] == [2, 3, 2, 3], "two samples of 10 bytes fit into 25; the others are read each time"
