"""A segmentor measured on domains, one score each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from gkd_core.data.entries import Protocol
from gkd_core.data.reading import Pair, read_pair
from gkd_core.data.taxonomy import LabelEncoding
from gkd_core.data.transforms import to_float
from gkd_core.evaluate.confusion import confusion
from gkd_core.evaluate.sliding import sliding_logits
from gkd_core.settings import EvaluateSettings


@dataclass(frozen=True)
class Domain:
    """One labelled dataset in one condition, ready to be read."""

    pairs: Sequence[Pair]
    encoding: LabelEncoding
    protocol: Protocol
    classes: int


@torch.inference_mode()
def measure(
    model: nn.Module, domain: Domain, settings: EvaluateSettings, device: torch.device, advance: Callable[[int], None]
) -> Tensor:
    """Confusion matrix (classes, classes), int64, of a model in evaluation mode over a whole domain."""
    total = torch.zeros(domain.classes, domain.classes, dtype=torch.int64)
    for index, pair in enumerate(domain.pairs):
        pixels, ids = read_pair(pair, domain.encoding)
        image, target = to_float(pixels), torch.from_numpy(ids)
        size = domain.protocol.input_size(*pixels.shape[:2])
        logits = sliding_logits(model, _resize(image, size).to(device), settings.window, settings.stride, settings.batch_size)
        if domain.protocol.resize_labels:
            target = functional.interpolate(target[None, None].float(), size=size, mode="nearest")[0, 0].to(torch.uint8)
        total += confusion(_resize(logits, (target.shape[0], target.shape[1])).argmax(dim=0).cpu(), target, domain.classes)
        advance(index + 1)
    return total


def _resize(image: Tensor, size: tuple[int, int]) -> Tensor:
    """(C, H, W) to (C, *size), bilinear; unchanged where the size is right already."""
    if tuple(image.shape[-2:]) == size:
        return image
    return functional.interpolate(image.unsqueeze(0), size=size, mode="bilinear", align_corners=False)[0]
