"""Logits of a whole image as the settings have it looked at: at one scale or several, mirrored too or not."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gkd_core.data.augment.transforms import resized
from gkd_core.evaluate.sliding import sliding_logits
from gkd_core.settings import EvaluateSettings


def view_logits(model: nn.Module, image: Tensor, settings: EvaluateSettings) -> Tensor:
    """Logits (K, H, W) of an image (3, H, W): the mean over its views, each seen through sliding windows.

    Logits are averaged rather than probabilities, as windows are, and as in the measurement that `scales` quotes. (What
    Mask2Former gives as logits are sums of probabilities already.)
    """
    height, width = image.shape[-2:]
    total: Tensor | None = None
    for scale in settings.scales:
        view = resized(image, (max(1, round(height * scale)), max(1, round(width * scale))))
        logits = _logits(model, view, settings)
        if settings.flip:
            logits = (logits + _logits(model, view.flip(-1), settings).flip(-1)) / 2
        logits = resized(logits, (height, width))
        total = logits if total is None else total + logits
    assert total is not None  # there is always a scale
    return total if len(settings.scales) == 1 else total / len(settings.scales)


def _logits(model: nn.Module, view: Tensor, settings: EvaluateSettings) -> Tensor:
    with torch.autocast(view.device.type, torch.bfloat16, enabled=settings.precision == "bf16"):
        # Averages over windows and views are taken in single precision.
        return sliding_logits(model, view, settings.window, settings.stride, settings.batch_size)
