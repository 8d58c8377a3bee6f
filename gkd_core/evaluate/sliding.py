"""Logits of a whole image from overlapping windows."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

SIDE_MULTIPLE = 32  # the coarsest stride of the feature maps


def sliding_logits(model: nn.Module, image: Tensor, window: tuple[int, int], stride: tuple[int, int], batch_size: int) -> Tensor:
    """Logits (K, H, W) of an image (3, H, W): windows are spaced by `stride`, the last ones moved back inside, overlaps averaged.

    An image smaller than the window is shown whole, with black pixels to the next multiple of 32 below and to the right.
    """
    height, width = image.shape[-2:]
    rows, columns = (min(side, _round_up(extent)) for side, extent in zip(window, (height, width), strict=True))
    padded = functional.pad(image, (0, max(0, columns - width), 0, max(0, rows - height)))
    corners = [
        (top, left)
        for top in _starts(padded.shape[-2], rows, stride[0])
        for left in _starts(padded.shape[-1], columns, stride[1])
    ]
    total: Tensor | None = None
    count = padded.new_zeros(padded.shape[-2:])
    for first in range(0, len(corners), batch_size):
        part = corners[first : first + batch_size]
        logits = model(torch.stack([padded[:, top : top + rows, left : left + columns] for top, left in part]))
        if total is None:
            total = padded.new_zeros(logits.shape[1], *padded.shape[-2:])
        for (top, left), scores in zip(part, logits, strict=True):
            total[:, top : top + rows, left : left + columns] += scores
            count[top : top + rows, left : left + columns] += 1
    assert total is not None  # there is always a window
    return (total / count)[:, :height, :width]


def _round_up(extent: int) -> int:
    return -(-extent // SIDE_MULTIPLE) * SIDE_MULTIPLE


def _starts(extent: int, window: int, stride: int) -> list[int]:
    """First pixels of the windows along one side; the last window ends at the last pixel."""
    last = max(0, extent - window)
    return [*range(0, last, stride), last]
