"""Expectations that a simulation needs: the slowest of many, what a cache still holds, and how often something fails."""

from __future__ import annotations

import math
from functools import lru_cache

from scipy.integrate import quad
from scipy.special import ndtr, pdtrc


@lru_cache
def expected_maximum(count: int) -> float:
    """Expected greatest of `count` independent standard normal numbers.

    >>> [round(expected_maximum(count), 3) for count in (1, 2, 1000)]
    [0.0, 0.564, 3.241]

    It is the integral of 1 - F over the positive half minus that of F over the negative half, F being the greatest's
    distribution function.
    """
    above, _ = quad(lambda x: 1 - ndtr(x) ** count, 0, math.inf)
    below, _ = quad(lambda x: ndtr(x) ** count, -math.inf, 0)
    return float(above - below)


def lru_hits(share: float) -> float:
    """Share of reads that a cache of the longest unused answers, which holds a `share` of what each pass reads in a new order.

    Between an item's turn at u in one pass and at v in the next, a part 1 - u(1 - v) of all items is used; it is still there
    if that is less than the share. With u and 1 - v uniform, this has the probability s + (1 - s) ln(1 - s).
    """
    if share >= 1:
        return 1.0
    return share + (1 - share) * math.log1p(-share)


def more_than(limit: int, expected: float) -> float:
    """Probability that more than `limit` events happen where `expected` are, at a constant rate (Poisson)."""
    return float(pdtrc(limit, expected))
