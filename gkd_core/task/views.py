"""The labelled views that stage two learns from: which images an update sees, at which scale, crop and colours."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from gkd_core.data.photometric import distort_colors
from gkd_core.data.reading import Pair, read_pair
from gkd_core.data.sampling import batch_indices
from gkd_core.data.store import SampleStore
from gkd_core.data.taxonomy import LabelEncoding
from gkd_core.data.transforms import jitter_colors, labelled_crop
from gkd_core.seeding import generator, seed_of
from gkd_core.settings import LearnTaskSettings

TENTH = 10


class Batch(NamedTuple):
    """Images (B, 3, H, W) in 0..1, their train ids (B, H, W), and the seed of whatever is drawn while learning from them."""

    images: Tensor
    target: Tensor
    seed: int


def labelled_batches(
    settings: LearnTaskSettings, pairs: Sequence[Pair], encoding: LabelEncoding, title: str, seed: int, device: torch.device
) -> Callable[[int], Batch]:
    """The batch of each update, a pure function of the update."""
    samples = SampleStore(len(pairs), lambda index: read_pair(pairs[index], encoding))

    def batch(update: int) -> Batch:
        draws = generator("crops", title, seed, update)
        views = []
        for index in batch_indices(update, settings.batch_size, len(samples), title, seed):
            image, label = samples[index]
            scale = _scale(settings, (image.shape[0], image.shape[1]), draws)
            views.append(labelled_crop(image, label, settings.image_size, scale, settings.cat_max_ratio, draws))
        images = _colored(settings, torch.stack([image for image, _ in views]), draws)
        target = torch.stack([ids for _, ids in views])
        return Batch(images.to(device), target.to(device), seed_of("learn", title, seed, update))

    return batch


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
