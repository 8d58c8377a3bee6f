"""Expectations against tables, draws and sums."""

from __future__ import annotations

import math
import random

import pytest

from gkd_core.planning.chance import expected_maximum, lru_hits, more_than


# Harter (1961), expected values of normal order statistics.
@pytest.mark.parametrize(("count", "value"), [(1, 0), (2, 0.56419), (3, 0.84628), (5, 1.16296), (10, 1.53875), (100, 2.50759)])
def test_the_greatest_of_normal_numbers_is_that_of_the_tables(count: int, value: float) -> None:
    assert expected_maximum(count) == pytest.approx(value, abs=1e-5)


@pytest.mark.parametrize("share", [0.2, 0.5, 0.8])
def test_a_cache_hits_as_often_as_a_simulated_one(share: float) -> None:
    items, passes, draws = 400, 12, random.Random(1)
    held: dict[int, None] = {}
    hits = 0
    for number in range(passes):
        for item in draws.sample(range(items), items):
            hits += number > 0 and item in held
            held.pop(item, None)
            held[item] = None
            if len(held) > share * items:
                del held[next(iter(held))]
    assert lru_hits(share) == pytest.approx(hits / items / (passes - 1), abs=0.02)


def test_a_cache_that_holds_everything_always_hits() -> None:
    assert (lru_hits(1), lru_hits(7), lru_hits(0)) == (1, 1, 0)


def test_the_tail_of_a_poisson_distribution() -> None:
    assert more_than(0, 0.1) == pytest.approx(1 - math.exp(-0.1))
    assert more_than(2, 3.0) == pytest.approx(1 - math.exp(-3) * (1 + 3 + 4.5))
    assert more_than(2, 0) == 0
    assert more_than(2, 5000) == 1
