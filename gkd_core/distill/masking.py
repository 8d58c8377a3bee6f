"""Which patches of the student's masked view are hidden."""

from __future__ import annotations

import torch
from torch import Tensor


def draw_masks(batch: int, patches: int, probability: float, ratio: float, generator: torch.Generator) -> Tensor:
    """Masks (M, patches), bool, for the first M = round(batch × probability) images of a batch.

    Each hides a random round(patches × ratio) of its patches; which ones is drawn for each image on its own. The rest of
    the masked view is clean, so it needs no mask (released: mask_first_n).
    """
    masked_images = round(batch * probability)
    hidden = round(patches * ratio)
    order = torch.rand(masked_images, patches, generator=generator).argsort(dim=1)
    return order < hidden
