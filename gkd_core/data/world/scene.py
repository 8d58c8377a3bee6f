"""A scene before it has colours: what is where, and the texture cues that every style shares."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image


@dataclass(frozen=True)
class Scene:
    """Geometry of one picture; all arrays are (height, width).

    `surface` says what a pixel shows (uint8: a train id, or the number of classes for things of no class), `label`
    what its label says (uint8 train ids, 255 ignored). `part` (uint8) numbers single things, so that two cars can differ
    in colour. `detail` (float32, about -1 to 1) is texture: windows, tiles, leaves. `depth` (float32) is 0 near, 1 far.
    """

    surface: np.ndarray
    label: np.ndarray
    part: np.ndarray
    detail: np.ndarray
    depth: np.ndarray


class Canvas:
    """Arrays of a scene while it is drawn, far things first. `surface` starts as class 0, everything at infinity."""

    def __init__(self, size: tuple[int, int]) -> None:
        self.height, self.width = size
        self.surface = np.zeros(size, dtype=np.uint8)
        self.part = np.zeros(size, dtype=np.uint8)
        self.detail = np.zeros(size, dtype=np.float32)
        self.depth = np.ones(size, dtype=np.float32)
        self.y = np.arange(self.height, dtype=np.float32)[:, None]
        self.x = np.arange(self.width, dtype=np.float32)[None, :]
        self._parts = 0

    def new_part(self) -> int:
        """A number for the next thing."""
        self._parts = self._parts % 255 + 1
        return self._parts

    def fill(
        self, mask: np.ndarray, surface: int, detail: np.ndarray | float = 0.0, depth: np.ndarray | float | None = None
    ) -> None:
        """Give the pixels of a full-size `mask` to one new thing."""
        np.copyto(self.surface, np.uint8(surface), where=mask)
        np.copyto(self.part, np.uint8(self.new_part()), where=mask)
        np.copyto(self.detail, np.float32(detail), where=mask)
        if depth is not None:
            np.copyto(self.depth, np.float32(depth), where=mask)

    def box(self, top: float, bottom: float, left: float, right: float) -> tuple[slice, slice]:
        """The part of the canvas within these pixel coordinates, at least one pixel a side where it lies inside."""
        y0, x0 = max(0, round(top)), max(0, round(left))
        return slice(y0, max(round(bottom), y0 + 1)), slice(x0, max(round(right), x0 + 1))

    def fill_box(
        self, box: tuple[slice, slice], surface: int, part: int, detail: float = 0.0, depth: float | None = None
    ) -> None:
        """Give a rectangle to the thing numbered `part`."""
        self.surface[box], self.part[box], self.detail[box] = surface, part, detail
        if depth is not None:
            self.depth[box] = depth

    def fill_ellipse(
        self, box: tuple[slice, slice], surface: int, part: int, detail: np.ndarray, depth: float | None = None
    ) -> None:
        """Give the ellipse within a rectangle to the thing numbered `part`; `detail` is of the canvas's size."""
        rows, columns = self.surface[box].shape
        v = (np.arange(rows, dtype=np.float32)[:, None] + 0.5) * (2 / max(rows, 1)) - 1
        u = (np.arange(columns, dtype=np.float32)[None, :] + 0.5) * (2 / max(columns, 1)) - 1
        inside = u * u + v * v <= 1
        self.surface[box][inside], self.part[box][inside] = surface, part
        self.detail[box][inside] = detail[box][inside]
        if depth is not None:
            self.depth[box][inside] = depth

    def finish(self, label: np.ndarray) -> Scene:
        """The scene with its label."""
        return Scene(self.surface, label, self.part, self.detail, self.depth)


def smooth_noise(rng: np.random.Generator, size: tuple[int, int], cells: tuple[int, int]) -> np.ndarray:
    """Noise in -1 … 1 that varies slowly: a grid of (rows, columns) random values, interpolated to `size`; float32."""
    coarse = rng.random((cells[0] + 1, cells[1] + 1), dtype=np.float32) * 2 - 1
    return np.asarray(Image.fromarray(coarse).resize((size[1], size[0]), Image.Resampling.BILINEAR))


def foliage(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    """The mottle of leaves, float32 of `size` in about -1 … 1; its grain is a share of the picture's height."""
    fine, coarse = (tuple(max(2, round(cells * side / size[0])) for side in size) for cells in (64, 16))
    return 0.7 * smooth_noise(rng, size, (fine[0], fine[1])) + 0.6 * smooth_noise(rng, size, (coarse[0], coarse[1]))


def white_noise(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Independent noise in -1 … 1, float32."""
    return rng.random(shape, dtype=np.float32) * 2 - 1
