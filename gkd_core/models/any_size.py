"""Transformers whose program takes images of any size: the position table is resampled by matrices that the program computes.

In use, a table is resampled by `functional.interpolate`, by a scale factor that is a Python number; a program would keep that of
the size with which it was made. Here the same sums are matrix products, whose entries follow from the size as the program meets
it: a table that is laid out for an image comes out as it is, any other one to about 1e-6.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from gkd_core.models.encoder import Encoder
from gkd_core.models.resize import SIGHT_OFFSET, Layout
from gkd_core.models.vit import (
    Entered,
    PlainViT,
    ReleasedPlainViT,
    ReleasedRotaryViT,
    RotaryViT,
    ViTEncoder,
    WindowedViT,
    table_layout,
    with_positions,
)

CUBIC = -0.75  # torch's constant of the bicubic kernel
CUBIC_ANTIALIASED = -0.5  # and that of the antialiased one, which is Pillow's


def objection_to_any_size(encoder: Encoder) -> str | None:
    """Why a program of an encoder takes images of one size only; None where it takes any."""
    if not isinstance(encoder, ViTEncoder):
        return None
    if isinstance(encoder.adapter, WindowedViT):
        return "its attention cuts the image into windows, whose number a program fixes"
    if isinstance(encoder.adapter, RotaryViT) and encoder.backbone.rope_mixed:
        return "its rotations are mixed in each block for one grid"
    return None


def take_any_size(encoder: Encoder) -> None:
    """Change an encoder so that a program of it takes images of any size; its answers stay, but for the last bits.

    Only one without `objection_to_any_size`. A pyramid needs no change.
    """
    if isinstance(encoder, ViTEncoder):
        released = isinstance(encoder.adapter, ReleasedPlainViT | ReleasedRotaryViT)
        rotary = isinstance(encoder.adapter, RotaryViT)
        encoder.adapter = AnySizeRotaryViT(released) if rotary else AnySizePlainViT(released)


class AnySizePlainViT(PlainViT):
    """`PlainViT`, or `ReleasedPlainViT`, for a program that takes any size."""

    def __init__(self, released: bool) -> None:
        self.released = released

    def enter(self, backbone: Any, embedded: Tensor) -> Entered:
        hidden = placed_anywhere(backbone, embedded, self.released)
        return Entered(backbone.norm_pre(backbone.patch_drop(hidden)))


class AnySizeRotaryViT(RotaryViT):
    """`RotaryViT`, or `ReleasedRotaryViT`, for a program that takes any size; rotations are computed for any grid."""

    def __init__(self, released: bool) -> None:
        self.released = released

    def enter(self, backbone: Any, embedded: Tensor) -> Entered:
        rotations = None if backbone.rope is None else backbone.rope.get_embed(shape=tuple(embedded.shape[1:3]))
        return self._rotated(backbone, placed_anywhere(backbone, embedded, self.released), rotations)


def placed_anywhere(backbone: Any, embedded: Tensor, released: bool) -> Tensor:
    """Patches (B, rows, columns, C) behind their prefix tokens, each with its position, for whatever grid they have."""
    table = backbone.pos_embed
    if table is not None:
        table = table_for(table, table_layout(backbone), embedded, released)
    return with_positions(backbone, embedded, table)


def table_for(table: Tensor, old: Layout, embedded: Tensor, released: bool) -> Tensor:
    """A position table (1, prefix + rows · columns, C) for the grid of patches (B, rows, columns, C).

    Bicubic: as `sight_table` where `released`, else antialiased, as timm has it; as it is where the grids are the same.
    """
    rows, columns = _places(embedded[0, :, 0, 0]), _places(embedded[0, 0, :, 0])
    other = ((_count(rows) != old.rows) | (_count(columns) != old.columns)).float()
    offset = SIGHT_OFFSET * other if released else torch.zeros_like(other)
    grid = table[0, old.prefix :].float().unflatten(0, (old.rows, old.columns))
    down = cubic_matrix(rows, old.rows, offset, antialias=not released)
    across = cubic_matrix(columns, old.columns, offset, antialias=not released)
    resized = torch.einsum("ra,abd,cb->rcd", down, grid, across).flatten(0, 1).unsqueeze(0)
    return torch.cat([table[:, : old.prefix], resized.to(table.dtype)], dim=1)


def cubic_matrix(places: Tensor, old: int, offset: Tensor, antialias: bool) -> Tensor:
    """The matrix (new, old) that resamples `old` values along a line to as many as there are `places` (0, 1, 2, …).

    Args:
        offset: added to the number of places before the scale is taken.
    """
    step = old / (_count(places) + offset)  # old values from one new one to the next
    centers = (places + 0.5) * step - 0.5
    if antialias:
        wide = step.clamp_min(1.0)
        weights = _cubic((torch.arange(old, device=places.device) - centers[:, None]) / wide, CUBIC_ANTIALIASED)
        return weights / weights.sum(dim=1, keepdim=True)
    # Beyond the border the last value goes on: its column takes what falls there.
    around = torch.arange(-MARGIN, old + MARGIN, device=places.device)
    weights = _cubic(around - centers[:, None], CUBIC)
    inside = around.clamp(0, old - 1)[:, None] == torch.arange(old, device=places.device)
    return weights @ inside.to(weights.dtype)


MARGIN = 4  # values beyond the border that a kernel of four values can reach, whatever the offset


def _cubic(distance: Tensor, a: float) -> Tensor:
    """Keys' kernel."""
    x = distance.abs()
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = ((x - 5) * x + 8) * x * a - 4 * a
    return torch.where(x <= 1, near, torch.where(x < 2, far, torch.zeros_like(x)))


def _places(line: Tensor) -> Tensor:
    """0, 1, 2, … as floats, as many as there are values along a line: so a program counts them anew for each image."""
    return torch.ones_like(line, dtype=torch.float32).cumsum(0) - 1


def _count(places: Tensor) -> Tensor:
    return torch.ones_like(places).sum()
