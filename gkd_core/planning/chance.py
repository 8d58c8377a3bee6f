"""Expectations that a simulation needs: the slowest of many, what a cache still holds, and how often something fails."""

from __future__ import annotations

import math
from functools import lru_cache

FARTHEST, STEPS = 8.0, 1600  # standard deviations either side, and steps between them, of the integral below


@lru_cache
def expected_maximum(count: int) -> float:
    """Expected greatest of `count` independent standard normal numbers (0 for one, 0.564 for two, 3.24 for a thousand).

    It is the integral of 1 - F over the positive half minus that of F over the negative half, F being the greatest's
    distribution function; Simpson's rule is exact here to many digits.
    """
    if count == 1:
        return 0.0

    def below(x: float) -> float:
        return (0.5 * math.erfc(-x / math.sqrt(2))) ** count

    def simpson(first: float, last: float) -> float:
        width = (last - first) / STEPS
        inner = sum((4 if step % 2 else 2) * below(first + step * width) for step in range(1, STEPS))
        return (below(first) + inner + below(last)) * width / 3

    return FARTHEST - simpson(0, FARTHEST) - simpson(-FARTHEST, 0)


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
    if expected > 700:  # e^-700 is about the smallest float; nothing so unlikely as `limit` matters then
        return 1.0
    term = total = math.exp(-expected)
    for number in range(1, limit + 1):
        term *= expected / number
        total += term
    return max(0.0, 1 - total)
