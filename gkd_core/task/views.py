"""The labelled views that stage two learns from: which images an update sees, at which scale, crop and colours."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from gkd_core.data.augment.photometric import distort_colors
from gkd_core.data.augment.transforms import jitter_colors, labelled_crop
from gkd_core.data.catalog.sources import Mix
from gkd_core.data.files.blobs import DataFile
from gkd_core.data.files.reading import LabelledImages, read_pair
from gkd_core.data.files.store import SampleStore
from gkd_core.data.files.streaming import training_order
from gkd_core.data.order.prefetch import ReadAhead
from gkd_core.seeding import generator
from gkd_core.settings import LearnTaskSettings, StreamingSettings

TENTH = 10


class Batch(NamedTuple):
    """Images (B, 3, H, W) in 0..1 and their train ids (B, H, W)."""

    images: Tensor
    target: Tensor


class LabelledViews:
    """The batch of each update, a pure function of the update. Each part's labels are read with its own encoding."""

    def __init__(
        self,
        settings: LearnTaskSettings,
        parts: Sequence[LabelledImages],
        mix: Mix,
        title: str,
        seed: int,
        streaming: StreamingSettings | None = None,
        updates: int | None = None,
    ) -> None:
        self._settings, self._keys = settings, (title, seed)
        self._pairs = [(pair, part.encoding) for part in parts for pair in part.pairs]
        images = [pair.image for pair, _ in self._pairs]
        self._order = training_order(images, mix, streaming, settings.batch_size, 1, 1, title, seed)
        columns = [images, [pair.label for pair, _ in self._pairs]]
        self._ahead = ReadAhead(columns, self._order, streaming, settings.batch_size, 0, 1, 1, updates)
        self._samples = SampleStore(len(self._pairs), self._read)

    def __call__(self, update: int) -> Batch:
        self._ahead(update)
        settings, draws = self._settings, generator("crops", *self._keys, update)
        views = []
        for index in self._indices(update):
            image, label = self._samples[index]
            scale = _scale(settings, (image.shape[0], image.shape[1]), draws)
            views.append(labelled_crop(image, label, settings.image_size, scale, settings.cat_max_ratio, draws))
        images = _colored(settings, torch.stack([image for image, _ in views]), draws)
        return Batch(images, torch.stack([ids for _, ids in views]))

    def files(self, update: int) -> list[DataFile]:
        """The images of an update's batch."""
        return [self._pairs[index][0].image for index in self._indices(update)]

    def _read(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        return read_pair(*self._pairs[index])

    def _indices(self, update: int) -> list[int]:
        return [visit.sample for visit in self._order.visits(update, self._settings.batch_size)]


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
