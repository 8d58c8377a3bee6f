"""The order that reads shards one after the other: what it promises, held by property tests."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gkd_core.data.catalog.sources import Mix, whole
from gkd_core.data.files.blobs import DataFile, LocalShards, Member
from gkd_core.data.order.sampling import Visit, batch_visits
from gkd_core.data.order.streaming import Order, Streamed, shards_ahead, training_order
from gkd_core.errors import DataError, SettingsError
from gkd_core.settings import StreamingSettings

few = settings(max_examples=40)
STORE = LocalShards(Path("/nowhere"))


@st.composite
def streams(draw: st.DrawFn) -> tuple[list[DataFile], StreamingSettings, int, int]:
    """Files whose shards are mixed, with lanes, workers that divide them, and a batch that they divide."""
    workers, lanes_each, turns = draw(st.integers(1, 3)), draw(st.integers(1, 3)), draw(st.integers(1, 3))
    lanes = workers * lanes_each
    sizes = draw(st.lists(st.integers(1, 5), min_size=lanes, max_size=lanes + 6))
    shards = draw(st.permutations([shard for shard, size in enumerate(sizes) for _ in range(size)]))
    files: list[DataFile] = [Member(STORE, f"d-{shard:05d}-x.tar", f"{i}.png", 0, 1) for i, shard in enumerate(shards)]
    return files, StreamingSettings(lanes=lanes, window=draw(st.integers(1, 4))), lanes * turns, workers


def order_of(case: tuple[list[DataFile], StreamingSettings, int, int], repeats: int = 1, seed: int = 0) -> Order:
    files, streaming, batch, workers = case
    return training_order(files, whole(len(files)), streaming, batch, workers, repeats, "title", seed)


def lane_streams(order: Order, lanes: int, batch: int, updates: int) -> list[list[Visit]]:
    """What each lane serves, from the batches alone: place p of a batch belongs to lane p mod lanes."""
    visits = [order.visits(update, batch) for update in range(updates)]
    return [[visit for batch_ in visits for visit in batch_[lane::lanes]] for lane in range(lanes)]


@few
@given(case=streams(), repeats=st.integers(1, 3))
def test_every_image_is_seen_once_an_epoch_of_its_lane(
    case: tuple[list[DataFile], StreamingSettings, int, int], repeats: int
) -> None:
    files, streaming, batch, _ = case
    updates = -(-3 * repeats * len(files) * streaming.lanes // batch)
    lanes = lane_streams(order_of(case, repeats), streaming.lanes, batch, updates)
    shards = [{files[visit.sample].shard for visit in lane} for lane in lanes]  # type: ignore[union-attr]
    assert sum(map(len, shards)) == len(set.union(*shards)), "no shard is in two lanes"
    seen = [{visit.sample for visit in lane} for lane in lanes]
    assert set.union(*seen) == set(range(len(files)))
    for lane, images in zip(lanes, seen, strict=True):
        epoch = repeats * len(images)
        for first in range(0, len(lane) - epoch + 1, epoch):
            assert Counter(visit.sample for visit in lane[first : first + epoch]) == dict.fromkeys(images, repeats)
        for image in images:
            earlier = [visit.earlier for visit in lane if visit.sample == image]
            assert earlier == list(range(len(earlier)))


@few
@given(case=streams())
def test_images_are_shuffled_within_a_window_of_shards(case: tuple[list[DataFile], StreamingSettings, int, int]) -> None:
    """An epoch of a lane is runs of at most `window` shards, none of which comes back."""
    files, streaming, batch, _ = case
    for lane in lane_streams(order_of(case), streaming.lanes, batch, -(-len(files) * streaming.lanes // batch)):
        images = {visit.sample for visit in lane}
        names = [files[visit.sample].shard for visit in lane[: len(images)]]  # type: ignore[union-attr]
        sizes = Counter(names)
        while names:
            open_shards: set[str] = set()
            length = 0
            while length < len(names) and (len(open_shards | {names[length]}) <= streaming.window):
                open_shards.add(names[length])
                length += 1
            assert length == sum(sizes[name] for name in open_shards), "a window is used up before the next one"
            names = names[length:]


@few
@given(case=streams(), first=st.integers(0, 20), count=st.integers(0, 6))
def test_the_shards_ahead_are_those_that_a_worker_reads(
    case: tuple[list[DataFile], StreamingSettings, int, int], first: int, count: int
) -> None:
    files, _, batch, workers = case
    order = order_of(case)
    ahead = [shards_ahead(files, order, range(first, first + count), batch, rank, workers) for rank in range(workers)]
    everything = [shards_ahead(files, order, range(60), batch, rank, workers) for rank in range(workers)]
    for rank in range(workers):
        read = [
            files[visit.sample].shard  # type: ignore[union-attr]
            for update in range(first, first + count)
            for visit in order_of(case).visits(update, batch)[rank::workers]
        ]
        assert ahead[rank] == list(dict.fromkeys(read))
        assert set(ahead[rank]) <= set(everything[rank])
    assert len({shard for shards in everything for shard in shards}) == sum(map(len, everything)), "workers share no shard"


@few
@given(case=streams(), updates=st.lists(st.integers(0, 500), min_size=1, max_size=6))
def test_an_update_does_not_depend_on_those_before_it(
    case: tuple[list[DataFile], StreamingSettings, int, int], updates: list[int]
) -> None:
    batch, order = case[2], order_of(case)
    assert [order.visits(update, batch) for update in updates] == [order_of(case).visits(update, batch) for update in updates]


def test_seeds_and_epochs_give_other_orders() -> None:
    streaming = StreamingSettings(lanes=1, window=2)
    orders = [Streamed([i // 10 for i in range(60)], streaming, 1, "title", seed) for seed in (0, 1)]
    epochs = {tuple(visit.sample for visit in order.visits(update, 60)) for order in orders for update in (0, 1)}
    assert len(epochs) == 4


def test_without_streaming_it_is_the_permutation_of_the_whole_dataset() -> None:
    files: list[DataFile] = [Path(f"{i}.png") for i in range(7)]
    order = training_order(files, whole(7), None, 4, 1, 2, "title", 3)
    assert [order.visits(u, 4) for u in range(5)] == [batch_visits(u, 4, 7, 2, "title", 3) for u in range(5)]


def test_what_does_not_fit_is_refused() -> None:
    files: list[DataFile] = [Member(STORE, f"d-{i:05d}-x.tar", f"{i}.png", 0, 1) for i in range(3)]
    with pytest.raises(SettingsError, match=r"data\.streaming\.lanes: 2 lanes for batches of 5 on 1 workers"):
        training_order(files, whole(3), StreamingSettings(lanes=2), 5, 1, 1, "a")
    with pytest.raises(SettingsError, match="2 lanes for batches of 4 on 4 workers"):
        training_order(files, whole(3), StreamingSettings(lanes=2), 4, 4, 1, "a")
    with pytest.raises(SettingsError, match="without weights"):
        training_order(files, Mix((1, 2), (2, 1)), StreamingSettings(lanes=2), 4, 1, 1, "a")
    with pytest.raises(DataError, match="4 lanes, but the dataset has 3 shards"):
        training_order(files, whole(3), StreamingSettings(lanes=4), 4, 1, 1, "a")
    with pytest.raises(DataError, match="x.png: not in a shard"):
        training_order([Path("x.png")], whole(1), StreamingSettings(lanes=1), 4, 1, 1, "a")
