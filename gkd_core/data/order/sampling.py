"""Which samples an update looks at, as a pure function of the update: nothing to save, nothing to restore.

And which labels are learnt from at all, where that is a part of them: seeded, and nested, so that a smaller fraction lies within
a larger one of the same seed.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from functools import lru_cache
from itertools import accumulate
from typing import NamedTuple

import torch

from gkd_core.data.catalog.sources import Mix
from gkd_core.data.files.reading import Pair
from gkd_core.seeding import generator


class Visit(NamedTuple):
    """A sample's turn in the stream: its index in the dataset, and how often it has been looked at before."""

    sample: int
    earlier: int


def batch_indices(update: int, batch_size: int, dataset_size: int, *keys: int | str) -> list[int]:
    """Indices of the samples of one update.

    Epochs are permutations of the dataset drawn from `keys`, laid end to end and cut into batches: every sample is seen
    equally often, and a batch may straddle two epochs.
    """
    return [visit.sample for visit in batch_visits(update, batch_size, dataset_size, 1, *keys)]


def batch_visits(update: int, batch_size: int, dataset_size: int, repeats: int, *keys: int | str) -> list[Visit]:
    """The samples of one update, each `repeats` times in a row (repeated augmentation: Hoffer et al. 2020; timm's
    RepeatAugSampler deals the repeats of a sample to different processes, and so does a stride of the number of processes).

    It is the stream of `batch_indices` with every entry repeated. Unlike timm, which draws a new order once as many samples
    were seen as there are images, an order is used up first, so that every image is seen equally often.
    """
    first = update * batch_size
    return [_visit(position, dataset_size, repeats, *keys) for position in range(first, first + batch_size)]


def mixed_visits(update: int, batch_size: int, mix: Mix, repeats: int, *keys: int | str) -> list[Visit]:
    """The samples of one update of a mix of parts, as indices into all of its images; with one part, `batch_visits`.

    An epoch of the mix has exactly `mix.draws` images of each part, in a random order; from epoch to epoch a part goes through
    its own permutations, end to end, so that its images are seen equally often.
    """
    if len(mix.sizes) == 1:
        return batch_visits(update, batch_size, mix.sizes[0], repeats, *keys)
    first = update * batch_size
    return [_mixed_visit(position, mix, repeats, *keys) for position in range(first, first + batch_size)]


def _mixed_visit(position: int, mix: Mix, repeats: int, *keys: int | str) -> Visit:
    ends = list(accumulate(mix.draws))
    epoch, place = divmod(position // repeats, ends[-1])
    # The order deals out tickets: the first draws[0] of them are the first part's, the next draws[1] the second's.
    ticket = _order(epoch, ends[-1], "mix", *keys)[place]
    part = bisect_right(ends, ticket)
    turn = epoch * mix.draws[part] + ticket - (ends[part] - mix.draws[part])
    earlier, place = divmod(turn, mix.sizes[part])
    sample = mix.starts[part] + _order(earlier, mix.sizes[part], "part", part, *keys)[place]
    return Visit(sample, earlier * repeats + position % repeats)


def _visit(position: int, size: int, repeats: int, *keys: int | str) -> Visit:
    epoch, place = divmod(position // repeats, size)
    return Visit(_permutation(epoch, size, *keys)[place], epoch * repeats + position % repeats)


def _drawn(epoch: int, size: int, *keys: int | str) -> list[int]:
    order: list[int] = torch.randperm(size, generator=generator("epoch", epoch, *keys)).tolist()
    return order


_permutation = lru_cache(maxsize=4)(_drawn)
_order = lru_cache(maxsize=32)(_drawn)  # a mix goes through one order a part at once, and its own


def fraction_of(count: int, fraction: float) -> int:
    """How many of `count` images a fraction is: rounded, one at least."""
    return max(1, round(count * fraction))


def draw_fraction(pairs: Sequence[Pair], fraction: float, *keys: int | str) -> list[Pair]:
    """A random fraction of the pairs, in their order: the beginning of one permutation, which `keys` alone decide."""
    order = torch.randperm(len(pairs), generator=generator("label fraction", *keys))
    return [pairs[index] for index in sorted(order[: fraction_of(len(pairs), fraction)].tolist())]
