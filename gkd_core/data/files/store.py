"""Decoded samples kept in memory, up to a bound: small datasets are decoded once, large ones as they come."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

import numpy as np

Sample = TypeVar("Sample", np.ndarray, tuple[np.ndarray, np.ndarray])
MEMORY_BYTES = 2 * 1024**3


class SampleStore(Generic[Sample]):
    """Samples by index, read by `read(index)` on first use and kept while they fit into `memory_bytes`."""

    def __init__(self, size: int, read: Callable[[int], Sample], memory_bytes: int = MEMORY_BYTES) -> None:
        self.size = size
        self._read: Callable[[int], Sample] = read
        self._free = memory_bytes
        self._kept: dict[int, Sample] = {}

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> Sample:
        if index in self._kept:
            return self._kept[index]
        sample = self._read(index)
        size = sample.nbytes if isinstance(sample, np.ndarray) else sum(part.nbytes for part in sample)
        if size <= self._free:
            self._free -= size
            self._kept[index] = sample
        return sample
