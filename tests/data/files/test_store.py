"""Samples kept in memory, up to a bound."""

from __future__ import annotations

import numpy as np

from gkd_core.data.files.store import SampleStore


def test_samples_are_read_once_while_they_fit() -> None:
    read: list[int] = []

    def reading(index: int) -> tuple[np.ndarray, np.ndarray]:
        read.append(index)
        return np.full(8, index, dtype=np.uint8), np.full(2, index, dtype=np.uint8)

    store = SampleStore(4, reading, memory_bytes=25)
    for _ in range(3):
        for index in range(4):
            image, label = store[index]
            assert (image[0], label[0]) == (index, index)
    assert len(store) == 4
    assert read[:4] == [0, 1, 2, 3]
    assert read[4:] == [2, 3, 2, 3], "two samples of 10 bytes fit into 25; the others are read each time"
