"""The loss of decoders that give each pixel its class scores."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from gkd_core.data.catalog.taxonomy import IGNORE


def segmentation_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Cross entropy of logits (B, K, h, w), resampled to the target (B, H, W), over the pixels that count.

    In single precision, whatever the network computed in: it is a sum over very many pixels.
    """
    full = functional.interpolate(logits.float(), size=target.shape[-2:], mode="bilinear", align_corners=False)
    counted = (target != IGNORE).sum().clamp_min(1)
    return functional.cross_entropy(full, target, ignore_index=IGNORE, reduction="sum") / counted
