"""Fractions of the labels: how many, which, and that smaller ones lie within larger ones."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gkd_core.data.files.reading import Pair
from gkd_core.data.order.label_fraction import draw_fraction, fraction_of


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
