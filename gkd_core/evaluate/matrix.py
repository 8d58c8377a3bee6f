"""A segmentor measured on domains, one score each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from gkd_core.data.augment.transforms import resized, to_float
from gkd_core.data.catalog.entries import Protocol
from gkd_core.data.catalog.taxonomy import LabelEncoding
from gkd_core.data.files.reading import Pair, read_image, read_label, read_pair
from gkd_core.data.files.shown import scored, shown
from gkd_core.errors import DataError
from gkd_core.evaluate.confusion import confusion
from gkd_core.evaluate.inference import image_logits
from gkd_core.settings import EvaluateSettings


@dataclass(frozen=True)
class ScoredImages:
    """One labelled dataset in one condition, ready to be read.

    `protocol` is what images and labels must still be brought to; None where they lie at the sizes that count already.
    """

    pairs: Sequence[Pair]
    encoding: LabelEncoding
    protocol: Protocol | None
    classes: int

    def shard(self, index: int, count: int) -> ScoredImages:
        """Part `index` of `count`. Each image is in exactly one, none twice; parts may be empty, where there are more parts
        than images."""
        return replace(self, pairs=self.pairs[index::count])


@torch.inference_mode()
def measure(
    model: nn.Module, domain: ScoredImages, settings: EvaluateSettings, device: torch.device, advance: Callable[[int], None]
) -> Tensor:
    """Confusion matrix (classes, classes), int64, of a model in evaluation mode over a whole domain.

    The matrices of a domain's shards add up to that of the domain, exactly.

    Raises:
        DataError: a file cannot be read, or holds a class that the model does not know; the message names it.
    """
    total = torch.zeros(domain.classes, domain.classes, dtype=torch.int64)
    for index, pair in enumerate(domain.pairs):
        total += predict(model, pair, domain, settings, device).confusion(domain.classes)
        advance(index + 1)
    return total


@dataclass(frozen=True)
class Prediction:
    """One image as it is scored.

    Attributes:
        pair: its files.
        image: what the model was shown, (3, h, w) in 0..1.
        truth: train ids, (H, W), uint8.
        answer: the model's classes, (H, W), int64.
    """

    pair: Pair
    image: Tensor
    truth: Tensor
    answer: Tensor

    def confusion(self, classes: int) -> Tensor:
        """Confusion matrix (classes, classes), int64, of this image; `DataError`, with the file's name, as in `confusion`."""
        try:
            return confusion(self.answer, self.truth, classes)
        except DataError as error:
            raise DataError(f"{self.pair.label}: {error}") from None


@torch.inference_mode()
def predict(model: nn.Module, pair: Pair, domain: ScoredImages, settings: EvaluateSettings, device: torch.device) -> Prediction:
    """What a model in evaluation mode makes of one image of a domain, by the protocol of the scores; all on the CPU.

    Raises:
        DataError: a file cannot be read.
    """
    image, truth = _as_scored(pair, domain)
    logits = resized(image_logits(model, image.to(device), settings), (truth.shape[0], truth.shape[1]))
    return Prediction(pair, image, truth, logits.argmax(dim=0).cpu())


def _as_scored(pair: Pair, domain: ScoredImages) -> tuple[Tensor, Tensor]:
    """The image (3, h, w) in 0..1 and the train ids (H, W), uint8, at the sizes that the protocol says."""
    if domain.protocol is None:
        return to_float(read_image(pair.image)), torch.from_numpy(read_label(pair.label, domain.encoding))
    pixels, ids = read_pair(pair, domain.encoding)
    return shown(pixels, domain.protocol), torch.from_numpy(scored(ids, domain.protocol))
