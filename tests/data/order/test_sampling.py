"""Which samples an update sees."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from timm.data.distributed_sampler import RepeatAugSampler

from gkd_core.data.catalog.sources import Mix, whole
from gkd_core.data.files.reading import Pair
from gkd_core.data.order.sampling import batch_indices, batch_visits, draw_fraction, fraction_of, mixed_visits


@given(size=st.integers(1, 12), batch=st.integers(1, 20), epochs=st.integers(1, 4), seed=st.integers(0, 99))
def test_epochs_laid_end_to_end_see_every_sample_once_each(size: int, batch: int, epochs: int, seed: int) -> None:
    updates = -(-size * epochs // batch)
    seen = [index for update in range(updates) for index in batch_indices(update, batch, size, "title", seed)]
    for epoch in range(epochs):
        assert sorted(seen[epoch * size : (epoch + 1) * size]) == list(range(size))


def test_an_update_does_not_depend_on_those_before_it() -> None:
    in_order = [batch_indices(update, 4, 10, "a", 0) for update in range(20)]
    backwards = [batch_indices(update, 4, 10, "a", 0) for update in reversed(range(20))]
    assert in_order == backwards[::-1]


def test_keys_and_epochs_give_other_orders() -> None:
    orders = [tuple(batch_indices(update, 50, 50, *keys)) for update in (0, 1) for keys in (("a", 0), ("a", 1), ("b", 0))]
    assert len(set(orders)) == 6


def test_larger_batches_see_the_same_stream() -> None:
    """Workers cut one update's indices among themselves, so the stream must not depend on the batch size."""
    small = [index for update in range(6) for index in batch_indices(update, 2, 7, "a")]
    assert small == [index for update in range(2) for index in batch_indices(update, 6, 7, "a")]
    assert Counter(small[:7]) == Counter(range(7))


@given(size=st.integers(1, 12), batch=st.integers(1, 9), repeats=st.integers(1, 4), update=st.integers(0, 30))
def test_repeats_follow_one_another_in_the_same_stream(size: int, batch: int, repeats: int, update: int) -> None:
    """With every entry of the plain stream `repeats` times in a row, each visit has its own number, and none is left out."""
    visits = [visit for u in range(update + 1) for visit in batch_visits(u, batch, size, repeats, "a", 1)]
    plain = batch_indices(0, len(visits), size, "a", 1)
    assert [visit.sample for visit in visits] == [sample for sample in plain for _ in range(repeats)][: len(visits)]
    for sample in range(size):
        earlier = [visit.earlier for visit in visits if visit.sample == sample]
        assert earlier == list(range(len(earlier)))


def test_repeats_lie_on_different_ranks_where_the_update_is_dealt_out() -> None:
    visits = batch_visits(0, 12, 40, 3, "a")
    for rank in range(3):
        assert len({visit.sample for visit in visits[rank::3]}) == 4


def test_timm_repeats_as_often_within_an_epoch() -> None:
    """timm's sampler, on one process: its order is another one, its make-up the same."""
    torch.manual_seed(0)
    theirs = list(RepeatAugSampler(range(512), num_replicas=1, rank=0, num_repeats=3))  # type: ignore[arg-type]
    ours = [visit.sample for visit in batch_visits(0, 512, 512, 3, "a")]
    assert sorted(Counter(theirs).values()) == sorted(Counter(ours).values())
    assert all(len(set(stream[i : i + 3])) == 1 for stream in (theirs, ours) for i in range(0, 510, 3))


@st.composite
def mixes(draw: st.DrawFn) -> Mix:
    """Parts of up to 9 images, each drawn from at least once an epoch."""
    sizes = draw(st.lists(st.integers(1, 9), min_size=2, max_size=4))
    draws = draw(st.lists(st.integers(1, 9), min_size=len(sizes), max_size=len(sizes)))
    return Mix(tuple(sizes), tuple(draws))


def part_of(sample: int, mix: Mix) -> int:
    return max(part for part, start in enumerate(mix.starts) if start <= sample)


@given(mix=mixes(), repeats=st.integers(1, 3), epochs=st.integers(1, 4))
def test_an_epoch_of_a_mix_has_the_stated_draws_of_each_part(mix: Mix, repeats: int, epochs: int) -> None:
    length = sum(mix.draws) * repeats
    for epoch in range(epochs):
        seen = [visit.sample for visit in mixed_visits(epoch, length, mix, repeats, "a", 1)]
        assert all(0 <= sample < sum(mix.sizes) for sample in seen)
        counts = [sum(part_of(sample, mix) == part for sample in seen) for part in range(len(mix.sizes))]
        assert counts == [drawn * repeats for drawn in mix.draws]


@given(mix=mixes(), repeats=st.integers(1, 3), epochs=st.integers(1, 12))
def test_images_of_a_part_are_seen_equally_often(mix: Mix, repeats: int, epochs: int) -> None:
    length = sum(mix.draws) * repeats
    visits = [visit for epoch in range(epochs) for visit in mixed_visits(epoch, length, mix, repeats, "a")]
    for part, start in enumerate(mix.starts):
        counts = [sum(visit.sample == start + image for visit in visits) for image in range(mix.sizes[part])]
        assert max(counts) - min(counts) in (0, repeats), "its permutations lie end to end; the last may be unfinished"
    seen = [(visit.sample, visit.earlier) for visit in visits]
    assert len(set(seen)) == len(seen), "a visit is numbered once"


@given(mix=mixes(), batch=st.integers(1, 7), update=st.integers(0, 30))
def test_a_mix_is_a_pure_function_of_the_update(mix: Mix, batch: int, update: int) -> None:
    """In any order of asking, and cut into batches of any size: the stream is one. So a resumed run goes on exactly."""
    later = mixed_visits(update + 1, batch, mix, 1, "a")
    single = [mixed_visits(position, 1, mix, 1, "a")[0] for position in range(update * batch, (update + 2) * batch)]
    assert [*mixed_visits(update, batch, mix, 1, "a"), *later] == single


def test_parts_lie_mixed_and_orders_differ() -> None:
    mix = Mix((50, 50), (50, 50))
    first, second = ([visit.sample for visit in mixed_visits(epoch, 100, mix, 1, "a")] for epoch in (0, 1))
    assert sorted(first) == sorted(second) == list(range(100))
    assert first != second
    changes = sum((left < 50) != (right < 50) for left, right in pairwise(first))
    assert changes > 25, "parts alternate at random, not in blocks"
    inside = [sample for sample in first if sample < 50]
    assert inside != sorted(inside) and [sample - 50 for sample in first if sample >= 50] != inside


def test_a_single_part_is_the_plain_stream() -> None:
    """Byte for byte what a source of one dataset always saw."""
    assert [mixed_visits(update, 5, whole(7), 2, "t", 3) for update in range(9)] == [
        batch_visits(update, 5, 7, 2, "t", 3) for update in range(9)
    ]


def pairs_of(count: int) -> list[Pair]:
    return [Pair(Path(f"i/{index}.png"), Path(f"l/{index}.png")) for index in range(count)]


@pytest.mark.parametrize(("fraction", "count"), [(1, 2975), (1 / 4, 744), (1 / 8, 372), (1 / 16, 186)])
def test_the_papers_fractions_of_cityscapes(fraction: float, count: int) -> None:
    assert fraction_of(2975, fraction) == len(draw_fraction(pairs_of(2975), fraction, "cityscapes/train", 0)) == count


@given(count=st.integers(1, 300), seed=st.integers(0, 5), fractions=st.tuples(st.floats(0.001, 1), st.floats(0.001, 1)))
def test_a_smaller_fraction_lies_within_a_larger_one(count: int, seed: int, fractions: tuple[float, float]) -> None:
    pairs = pairs_of(count)
    small, large = (draw_fraction(pairs, fraction, "d/train", seed) for fraction in sorted(fractions))
    assert set(small) <= set(large) <= set(pairs)
    assert len(small) == fraction_of(count, min(fractions)) >= 1
    assert [pair for pair in pairs if pair in set(large)] == large, "in the order of the whole"


def test_the_whole_is_the_whole() -> None:
    assert draw_fraction(pairs_of(9), 1.0, "d/train", 0) == pairs_of(9)


def test_the_draw_depends_on_seed_and_dataset() -> None:
    pairs = pairs_of(200)
    draws = {tuple(pair.image for pair in draw_fraction(pairs, 0.1, name, seed)) for name in ("a/t", "b/t") for seed in (0, 1)}
    assert len(draws) == 4
