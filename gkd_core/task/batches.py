"""The labelled batches that stage two learns from: which images an update sees, at which scale, crop and colours."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from gkd_core.data.augment.photometric import distort_colors
from gkd_core.data.augment.transforms import jitter_colors, labelled_crop, padded, unpadded_crop
from gkd_core.data.files.blobs import DataFile
from gkd_core.data.files.reading import LabelledImages, read_pair
from gkd_core.data.order.samples import Reading, Samples
from gkd_core.seeding import generator
from gkd_core.settings import LearnTaskSettings

TENTH = 10
CROPS = {"black": labelled_crop, "mean": unpadded_crop}  # by what lies beyond an image


class Batch(NamedTuple):
    """Images (B, 3, H, W) in 0..1 and their train ids (B, H, W)."""

    images: Tensor
    target: Tensor


class LabelledBatches:
    """The batch of each update, a pure function of the update. Each part's labels are read with its own encoding.

    `mean` (3,), in 0..1, is the encoder's: the colour of what lies beyond an image where `padding` asks for it.
    """

    def __init__(self, settings: LearnTaskSettings, parts: Sequence[LabelledImages], reading: Reading, mean: Tensor) -> None:
        self._settings, self._reading, self._mean = settings, reading, mean
        self._pairs = [(pair, part.encoding) for part in parts for pair in part.pairs]
        columns = [[pair.image for pair, _ in self._pairs], [pair.label for pair, _ in self._pairs]]
        self._samples = Samples(columns, reading, settings.batch_size, 1, self._read)

    def __call__(self, update: int) -> Batch:
        self._samples.prefetch(update)
        settings, draws = self._settings, generator("crops", self._reading.title, self._reading.seed, update)
        cut = CROPS[settings.padding]
        crops = []
        for visit in self._samples.visits(update):
            image, label = self._samples[visit.sample]
            scale = _scale(settings, (image.shape[0], image.shape[1]), draws)
            crops.append(cut(image, label, settings.image_size, scale, settings.cat_max_ratio, draws))
        if settings.padding == "mean":
            colored = [(_colored(settings, image.unsqueeze(0), draws)[0], ids) for image, ids in crops]
            whole = [padded(image, ids, settings.image_size, self._mean) for image, ids in colored]
            return Batch(torch.stack([image for image, _ in whole]), torch.stack([ids for _, ids in whole]))
        images = _colored(settings, torch.stack([image for image, _ in crops]), draws)
        return Batch(images, torch.stack([ids for _, ids in crops]))

    def files(self, update: int) -> list[DataFile]:
        """The images of an update's batch."""
        return self._samples.files(update)

    def _read(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        return read_pair(*self._pairs[index])


def shortest_edge_scale(
    size: tuple[int, int], side: int, resize_range: tuple[float, float], longest: int | None, generator: torch.Generator
) -> float:
    """Factor that brings the shorter edge of an image of `size` to a random tenth of `side` within `resize_range`, edges of
    that many pixels and no longer than `longest`. Released: 16 sizes, 256 to 1024 of a side of 512, in steps of a tenth."""
    low, high = (round(bound * TENTH) for bound in resize_range)
    tenths = low + int(torch.randint(high - low + 1, (), generator=generator))
    factor = max(1, side * tenths // TENTH) / min(size)
    return factor if longest is None else min(factor, longest / max(size))


def _scale(settings: LearnTaskSettings, size: tuple[int, int], draws: torch.Generator) -> tuple[float, float]:
    """Range of the random scale of one image, as a factor of its own size."""
    if settings.resize_of == "image":
        return settings.resize_range
    factor = shortest_edge_scale(size, min(settings.image_size), settings.resize_range, settings.longest_edge, draws)
    return factor, factor


def _colored(settings: LearnTaskSettings, images: Tensor, draws: torch.Generator) -> Tensor:
    if settings.colors == "jitter":
        return jitter_colors(images, settings.color_jitter, draws)
    return torch.stack([distort_colors(image, draws) for image in images])
