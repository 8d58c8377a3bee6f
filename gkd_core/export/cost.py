"""What fewer bits cost: mIoU of a program and of PyTorch on the same labelled images, seen through the windows of the score."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from gkd_core.errors import GkdError
from gkd_core.evaluate.confusion import class_iou, mean_iou
from gkd_core.evaluate.matrix import ScoredImages, measure
from gkd_core.export.check import as_bytes
from gkd_core.export.wanted import Sizes, Takes
from gkd_core.models.segmentor import Segmentor as Network
from gkd_core.predict.manifest import View

MOST_IMAGES = 100  # evenly spaced among those of the domain


@dataclass(frozen=True)
class Cost:
    """mIoU in percent on the same images."""

    images: int
    program: float
    network: float

    @property
    def recorded(self) -> dict[str, float]:
        """As a manifest has it."""
        return {"scored-images": float(self.images), "miou": self.program, "miou-of-pytorch": self.network}

    @property
    def line(self) -> str:
        """As a person reads it."""
        return (
            f"{self.program:.2f} mIoU on {self.images} of the source's validation images, "
            f"{self.program - self.network:+.2f} against PyTorch in single precision"
        )


class _Windows(nn.Module):
    """A program as the measurement calls a network: windows of any size are padded with black to one that the program takes.

    Where windows overlap, logits are averaged; the classes of a program that gives no logits are put to the vote.
    """

    def __init__(self, program: Callable[[Tensor], Tensor], sizes: Sizes, takes: Takes, classes: int) -> None:
        super().__init__()
        self._program = program
        self._sizes = sizes
        self._takes = takes
        self._classes = classes

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, K, H, W) of images (B, 3, H, W) in 0..1."""
        height, width = images.shape[-2:]
        rows, columns = self._sizes.holding(height, width)
        shown = functional.pad(images, (0, columns - width, 0, rows - height))
        if self._takes == "logits-of-floats":
            logits = self._program(shown)
        else:
            classes = self._program(as_bytes(shown)).long()
            logits = functional.one_hot(classes, self._classes).permute(0, 3, 1, 2).float()
        return logits[..., :height, :width]


def cost_of(
    program: Callable[[Tensor], Tensor], network: Network, domain: ScoredImages, view: View, sizes: Sizes, takes: Takes
) -> Cost:
    """The mIoU of a program and of the network that it was made of, on at most `MOST_IMAGES` images of a domain.

    Args:
        network: in single precision, on the CPU; it sees the same padded windows.

    Raises:
        GkdError: the program takes one size alone, which is smaller than the windows of the score; or no pixel counts.
        DataError: an image or label cannot be read.
    """
    chosen = domain.shard(0, max(1, -(-len(domain.pairs) // MOST_IMAGES)))
    models = (_Windows(program, sizes, takes, domain.classes), _Windows(network, sizes, "logits-of-floats", domain.classes))
    ious = [_miou(model, chosen, view) for model in models]
    return Cost(len(chosen.pairs), *ious)


def _miou(model: nn.Module, domain: ScoredImages, view: View) -> float:
    matrix = measure(model.eval(), domain, view.settings(), torch.device("cpu"), lambda done: None)
    if not matrix.any():
        raise GkdError("no pixel of the source's validation labels counts, so what fewer bits cost cannot be told; check them")
    return mean_iou(class_iou(matrix))
