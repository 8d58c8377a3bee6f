"""Tiles: every pixel is in one, all have the full size, and they are those of mmsegmentation's converters."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from gkd_core.data.catalog.tiling import Box, Tiling


@settings(max_examples=60)
@given(height=st.integers(1, 90), width=st.integers(1, 90), size=st.integers(1, 40), share=st.floats(0.01, 1))
def test_tiles_cover_the_picture_and_have_the_full_size(height: int, width: int, size: int, share: float) -> None:
    tiling = Tiling(size=size, stride=max(1, int(size * share)))
    boxes, seen = tiling.boxes(height, width), np.zeros((height, width), dtype=int)
    for box in boxes:
        assert (box.bottom - box.top, box.right - box.left) == (min(size, height), min(size, width))
        assert box.left >= 0 and box.top >= 0
        seen[box.top : box.bottom, box.left : box.right] += 1
    assert seen.shape == (height, width) and seen.min() >= 1
    assert len(set(boxes)) == len(boxes)
    for starts in ([box.left for box in boxes], [box.top for box in boxes]):
        steps = np.diff(sorted(set(starts)))
        assert (steps[:-1] == tiling.stride).all() and (steps <= tiling.stride).all()


def converter_tiles(height: int, width: int, size: int) -> set[Box]:
    """What the converters of mmsegmentation name: windows one size apart, beyond the border moved back to it."""
    count = max(height, width) // size + 2
    tops = [min(row * size, height - size) for row in range(count)]
    lefts = [min(column * size, width - size) for column in range(count)]
    return {Box(left, top, left + size, top + size) for top in tops for left in lefts}


@pytest.mark.parametrize(("height", "width"), [(6000, 6000), (2569, 1919), (2565, 1887), (1024, 512), (512, 512)])
def test_the_default_gives_the_tiles_of_the_converters(height: int, width: int) -> None:
    assert set(Tiling().boxes(height, width)) == converter_tiles(height, width, 512)


def test_potsdam_has_as_many_tiles_as_the_benchmark_states() -> None:
    """144 of each of 24 pictures to train on and of 14 to validate: 3456 and 2016."""
    count = len(Tiling().boxes(6000, 6000))
    assert (24 * count, 14 * count) == (3456, 2016)
    assert Tiling().boxes(6000, 6000)[-1].suffix == "_5488_5488_6000_6000"


def test_gaps_are_refused() -> None:
    with pytest.raises(ValidationError, match="pixels between tiles would be lost"):
        Tiling(size=512, stride=600)
