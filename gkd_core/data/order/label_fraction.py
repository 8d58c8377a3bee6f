"""A part of the labels: seeded, and nested, so that a smaller fraction lies within a larger one of the same seed."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from gkd_core.data.files.reading import Pair
from gkd_core.seeding import generator


def fraction_of(count: int, fraction: float) -> int:
    """How many of `count` images a fraction is: rounded, one at least."""
    return max(1, round(count * fraction))


def draw_fraction(pairs: Sequence[Pair], fraction: float, *keys: int | str) -> list[Pair]:
    """A random fraction of the pairs, in their order: the beginning of one permutation, which `keys` alone decide."""
    order = torch.randperm(len(pairs), generator=generator("label fraction", *keys))
    return [pairs[index] for index in sorted(order[: fraction_of(len(pairs), fraction)].tolist())]
