"""Which samples an update sees."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from gkd_core.data.sampling import batch_indices


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
