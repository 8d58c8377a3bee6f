"""Logits of a whole image: through overlapping windows, at one scale or several, mirrored too or not, as the settings say."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from gkd_core.settings import EvaluateSettings

SIDE_MULTIPLE = 32  # the coarsest stride of the feature maps


def image_logits(model: nn.Module, image: Tensor, settings: EvaluateSettings) -> Tensor:
    """Logits (K, H, W) of an image (3, H, W): the mean over scales and mirroring, each through sliding windows.

    Logits are averaged rather than probabilities, as windows are, and as in the measurement that `scales` quotes. (What
    Mask2Former gives as logits are sums of probabilities already.)
    """
    return batch_logits(model, image.unsqueeze(0), settings)[0]


def batch_logits(model: nn.Module, images: Tensor, settings: EvaluateSettings) -> Tensor:
    """Logits (N, K, H, W) of images of one size (N, 3, H, W): `image_logits` of each, whose windows share forward passes.

    Of a single image they are `image_logits` bit for bit. Of several they may differ from it in the last bits, as with another
    `batch_size`: the order of a sum depends on how much is computed at once.
    """
    height, width = images.shape[-2:]
    total: Tensor | None = None
    for scale in settings.scales:
        scaled = resized_batch(images, scaled_size(height, width, scale))
        logits = _logits(model, scaled, settings)
        if settings.flip:
            logits = (logits + _logits(model, scaled.flip(-1), settings).flip(-1)) / 2
        logits = resized_batch(logits, (height, width))
        total = logits if total is None else total + logits
    assert total is not None  # there is always a scale
    return total if len(settings.scales) == 1 else total / len(settings.scales)


def scaled_size(height: int, width: int, scale: float) -> tuple[int, int]:
    """The size (height, width) in pixels at which one of the `scales` shows an image."""
    return max(1, round(height * scale)), max(1, round(width * scale))


def resized_batch(images: Tensor, size: tuple[int, int]) -> Tensor:
    """As `resized`, of a batch (N, C, H, W)."""
    if tuple(images.shape[-2:]) == size:
        return images
    return functional.interpolate(images, size=size, mode="bilinear", align_corners=False)


def _logits(model: nn.Module, images: Tensor, settings: EvaluateSettings) -> Tensor:
    with precision_of(images.device, settings.precision):
        # Averages over windows, scales and mirroring are taken in single precision.
        return sliding_batch(model, images, settings.window, settings.stride, settings.batch_size)


def precision_of(device: torch.device, precision: Literal["fp32", "bf16"]) -> torch.autocast:
    """The arithmetic of a forward pass, as a context."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")


def sliding_logits(model: nn.Module, image: Tensor, window: tuple[int, int], stride: tuple[int, int], batch_size: int) -> Tensor:
    """Logits (K, H, W) of an image (3, H, W): windows are spaced by `stride`, the last ones moved back inside, overlaps averaged.

    An image smaller than the window is shown whole, with black pixels to the next multiple of 32 below and to the right.
    """
    return sliding_batch(model, image.unsqueeze(0), window, stride, batch_size)[0]


def sliding_batch(model: nn.Module, images: Tensor, window: tuple[int, int], stride: tuple[int, int], batch_size: int) -> Tensor:
    """`sliding_logits` of each of the images (N, 3, H, W), (N, K, H, W); `batch_size` windows of any of them in one pass."""
    height, width = images.shape[-2:]
    rows, columns = window_size(height, width, window)
    padded = functional.pad(images, (0, max(0, columns - width), 0, max(0, rows - height)))
    corners = window_corners(padded.shape[-2], padded.shape[-1], (rows, columns), stride)
    windows = [(index, top, left) for index in range(len(images)) for top, left in corners]
    total: Tensor | None = None
    for first in range(0, len(windows), batch_size):
        part = windows[first : first + batch_size]
        logits = model(torch.stack([padded[index, :, top : top + rows, left : left + columns] for index, top, left in part]))
        if total is None:
            total = padded.new_zeros(len(images), logits.shape[1], *padded.shape[-2:])
        for (index, top, left), scores in zip(part, logits, strict=True):
            total[index, :, top : top + rows, left : left + columns] += scores
    assert total is not None  # there is always a window
    count = padded.new_zeros(padded.shape[-2:])
    for top, left in corners:
        count[top : top + rows, left : left + columns] += 1
    return (total / count)[..., :height, :width]


def window_size(height: int, width: int, window: tuple[int, int]) -> tuple[int, int]:
    """The size of the windows through which an image of this size is seen: no larger than it, its sides multiples of 32."""
    rows, columns = (min(side, _round_up(extent)) for side, extent in zip(window, (height, width), strict=True))
    return rows, columns


def window_corners(height: int, width: int, window: tuple[int, int], stride: tuple[int, int]) -> list[tuple[int, int]]:
    """First pixels (row, column) of the windows over an image that is padded to this size, row by row."""
    return [(top, left) for top in _starts(height, window[0], stride[0]) for left in _starts(width, window[1], stride[1])]


def windows_by_pass(height: int, width: int, settings: EvaluateSettings) -> list[int]:
    """How many windows `batch_logits` sees of an image of this size in each of its passes: a pass a scale, two where mirrored."""
    counts = []
    for scale in settings.scales:
        size = scaled_size(height, width, scale)
        rows, columns = window_size(*size, settings.window)
        corners = window_corners(max(size[0], rows), max(size[1], columns), (rows, columns), settings.stride)
        counts += [len(corners)] * (2 if settings.flip else 1)
    return counts


def _round_up(extent: int) -> int:
    return -(-extent // SIDE_MULTIPLE) * SIDE_MULTIPLE


def _starts(extent: int, window: int, stride: int) -> list[int]:
    """First pixels of the windows along one side; the last window ends at the last pixel."""
    last = max(0, extent - window)
    return [*range(0, last, stride), last]
