"""A large picture cut into tiles, as the aerial benchmarks are trained and scored on."""

from __future__ import annotations

from typing import NamedTuple, Self

from pydantic import Field, model_validator

from gkd_core.data.catalog.taxonomy import Declaration


class Box(NamedTuple):
    """Part of a picture: columns `left` to `right` and rows `top` to `bottom`, in pixels, the ends not included."""

    left: int
    top: int
    right: int
    bottom: int

    @property
    def suffix(self) -> str:
        """What a tile's name ends with, as mmsegmentation's converters write it: `_left_top_right_bottom`."""
        return f"_{self.left}_{self.top}_{self.right}_{self.bottom}"


class Tiling(Declaration):
    """Square tiles of `size` pixels, the next one `stride` pixels on: they overlap by `size - stride`.

    The last tile of a row or column is moved back so that it ends at the border: every tile has the full size, unless the
    picture itself is smaller. So do mmsegmentation's converters for Potsdam and Vaihingen (tools/dataset_converters), whose
    tiles lie 512 apart although their option says 256: they count the tiles by the stride, but place them by the size.
    """

    size: int = Field(512, gt=0)
    stride: int = Field(512, gt=0)

    @model_validator(mode="after")
    def _no_gaps(self) -> Self:
        if self.stride > self.size:
            raise ValueError(f"stride {self.stride} exceeds size {self.size}: pixels between tiles would be lost")
        return self

    def boxes(self, height: int, width: int) -> list[Box]:
        """The tiles of a picture of this size in pixels, row by row."""
        return [
            Box(left, top, min(left + self.size, width), min(top + self.size, height))
            for top in self._starts(height)
            for left in self._starts(width)
        ]

    def _starts(self, length: int) -> list[int]:
        last = max(0, length - self.size)
        return [*range(0, last, self.stride), last]
