"""Which samples an update looks at, as a pure function of the update: nothing to save, nothing to restore."""

from __future__ import annotations

from functools import lru_cache

import torch

from gkd_core.seeding import generator


def batch_indices(update: int, batch_size: int, dataset_size: int, *keys: int | str) -> list[int]:
    """Indices of the samples of one update.

    Epochs are permutations of the dataset drawn from `keys`, laid end to end and cut into batches: every sample is seen
    equally often, and a batch may straddle two epochs.
    """
    first = update * batch_size
    return [
        _permutation(position // dataset_size, dataset_size, *keys)[position % dataset_size]
        for position in range(first, first + batch_size)
    ]


@lru_cache(maxsize=4)
def _permutation(epoch: int, size: int, *keys: int | str) -> list[int]:
    order: list[int] = torch.randperm(size, generator=generator("epoch", epoch, *keys)).tolist()
    return order
