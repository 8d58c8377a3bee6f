"""What a student says of one image: its class in every pixel, how sure it is, and how that looks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from gkd_core.predict.known import Distance, PartName
from gkd_core.predict.pictures import Picture

BLEND = 0.5  # share of the class's colour in an overlay
CHUNK = 2**18  # pixels that are judged at once: what is in between then stays in the processor's cache

Colors = tuple[tuple[int, int, int], ...]


@dataclass(frozen=True, eq=False)
class Strip:
    """Rows of an answer, from row `top` on.

    Attributes:
        labels: train ids, uint8 (rows, W).
        confidence: the probability of the class that is answered, float32 (rows, W).
        entropy: sum over the pixels of the entropy of their probabilities, in nats.
    """

    top: int
    labels: np.ndarray
    confidence: np.ndarray
    entropy: float


def probabilities_of(scores: Tensor, additive: bool) -> Tensor:
    """Probabilities (K, h, w) of the classes, from what the decoder scores pixels by.

    Args:
        additive: the scores are sums of probabilities, as Mask2Former's; else they are logits.
    """
    if not additive:
        return scores.softmax(dim=0)
    total = scores.sum(dim=0, keepdim=True)
    # Where no query claims a pixel nothing is known of it.
    return torch.where(total > 0, scores / total.clamp_min(torch.finfo(scores.dtype).tiny), 1 / scores.shape[0])


def judged(scores: Tensor, additive: bool, top: int = 0) -> Strip:
    """What scores (K, h, w) of some rows say. The class is that of the highest score, as where scores are counted."""
    labels = scores.argmax(dim=0)
    height, width = labels.shape
    confidence = torch.empty((height, width), dtype=torch.float32)
    entropy = 0.0
    step = max(1, CHUNK // width)
    for first in range(0, height, step):
        shares = probabilities_of(scores[:, first : first + step].float(), additive)
        confidence[first : first + step] = shares.gather(0, labels[None, first : first + step])[0].cpu()
        entropy += float(torch.special.entr(shares).sum(dtype=torch.float64))
    return Strip(top, labels.to(torch.uint8).cpu().numpy(), confidence.numpy(), entropy)


def quantised(scores: Tensor, additive: bool) -> np.ndarray:
    """Probabilities of scores (K, h, w) in 255ths, uint8."""
    found: np.ndarray = (probabilities_of(scores.float(), additive) * 255).round().to(torch.uint8).cpu().numpy()
    return found


@dataclass(frozen=True, eq=False)
class Answer:
    """What a student says of an image of H × W pixels.

    Attributes:
        labels: train ids, uint8 (H, W): indices into `classes`.
        confidence: the probability of the class that is answered, float32 (H, W).
        entropy: mean over the pixels of the entropy of their probabilities, in nats: 0 where it is sure of everything.
        classes: what the classes are called.
        colors: the colour of each, (red, green, blue).
        seconds: what it took.
        distances: how far the image is from those that the student knows, by part; empty where there are no statistics.
    """

    labels: np.ndarray
    confidence: np.ndarray
    entropy: float
    classes: tuple[str, ...]
    colors: Colors
    seconds: float
    _picture: Picture = field(repr=False)
    _scores: Callable[[], Iterator[tuple[int, Tensor]]] = field(repr=False)
    _additive: bool = field(repr=False)
    distances: Mapping[PartName, Distance] = field(default_factory=dict)

    @property
    def shares(self) -> np.ndarray:
        """The share of the pixels that each class has, float64 (K,)."""
        counts = np.bincount(self.labels.reshape(-1), minlength=len(self.classes))
        found: np.ndarray = counts / self.labels.size
        return found

    def probabilities(self) -> np.ndarray:
        """The probability of each class in each pixel, float32 (K, H, W). Of a large image it is computed again."""
        found = np.empty((len(self.classes), *self.labels.shape), dtype=np.float32)
        for top, scores in self._scores():
            shares = probabilities_of(scores.float(), self._additive)
            found[:, top : top + scores.shape[1]] = shares.cpu().numpy()
        return found

    def quantised(self) -> np.ndarray:
        """The probabilities in 255ths, uint8 (K, H, W): a quarter of the room."""
        found = np.empty((len(self.classes), *self.labels.shape), dtype=np.uint8)
        for top, scores in self._scores():
            found[:, top : top + scores.shape[1]] = quantised(scores, self._additive)
        return found

    def colored(self) -> np.ndarray:
        """The classes in their colours, uint8 (H, W, 3)."""
        return color_table(self.colors)[self.labels]

    def overlay(self, blend: float = BLEND) -> np.ndarray:
        """The image with the colours of the classes over it, uint8 (H, W, 3).

        Args:
            blend: the colours' share, 0..1.
        """
        return overlaid(self._picture.as_bytes(), self.labels, self.colors, blend)


def color_table(colors: Colors) -> np.ndarray:
    """Colours by train id, uint8 (256, 3); black where there is no class."""
    table = np.zeros((256, 3), dtype=np.uint8)
    table[: len(colors)] = colors
    return table


def overlaid(pixels: np.ndarray, labels: np.ndarray, colors: Colors, blend: float = BLEND) -> np.ndarray:
    """Pixels, uint8 (h, w, 3), with the colours of train ids (h, w) over them."""
    share = round(blend * 256)
    painted = color_table(colors).astype(np.uint16) * share
    mixed: np.ndarray = ((pixels.astype(np.uint16) * (256 - share) + painted[labels] + 128) >> 8).astype(np.uint8)
    return mixed
