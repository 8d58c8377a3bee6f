"""The views that an update looks at, before any model has seen them: plain data, so that a loader process can make them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from gkd_core.data.augment.augmentation import Augmentation, Keys, LightAugmentation, ReleasedAugmentation
from gkd_core.data.files.blobs import DataFile
from gkd_core.data.files.reading import read_image
from gkd_core.data.order.samples import MEMORY_BYTES, Reading, Samples
from gkd_core.data.order.sampling import Visit
from gkd_core.seeding import generator
from gkd_core.settings import DistillSettings


class Views(NamedTuple):
    """One update's views, of one rank.

    Attributes:
        images: (B, 3, H, W) in 0..1.
        masks: hidden patches of the first M views, (M, N), bool.
        slots: number of each view, (B,), where views are fixed: image · fixed_views + view; -1 elsewhere.
        update: the update that they belong to.
    """

    images: Tensor
    masks: Tensor
    slots: Tensor
    update: int


class ViewMaker:
    """Makes the views of one step of stage one: a pure function of (title, seed, update, rank).

    Args:
        reading: how this rank reads the images.
        patches: patch tokens of a view on the student's grid, which masks are drawn on.
        loaders: processes that share the memory for decoded images.
    """

    def __init__(
        self, settings: DistillSettings, images: Sequence[DataFile], reading: Reading, patches: int, loaders: int = 0
    ) -> None:
        self._settings, self._files, self._reading, self._patches = settings, images, reading, patches
        self._samples = Samples(
            [images],
            reading,
            settings.batch_size,
            settings.repeated_augmentation,
            self._read,
            MEMORY_BYTES // max(1, loaders),
        )
        kind = ReleasedAugmentation if settings.augment == "released" else LightAugmentation
        self._augment: Augmentation = kind(settings.image_size, settings.crop_scale, settings.color_jitter)

    def __call__(self, update: int) -> Views:
        """The views of an update."""
        self._samples.prefetch(update)
        settings, reading, visits = self._settings, self._reading, self._samples.visits(update)
        keys = [self._keys(visit, update, reading.rank + place * reading.workers) for place, visit in enumerate(visits)]
        draws = generator("masks", reading.title, reading.seed, update, reading.rank)
        share = settings.batch_size // reading.workers
        masks = draw_masks(share, self._patches, settings.mask_probability, settings.mask_ratio, draws)
        slots = torch.tensor([self._slot(visit) for visit in visits])
        return Views(self._augment([self._samples[visit.sample] for visit in visits], keys), masks, slots, update)

    def fixed(self, slots: Sequence[int]) -> Tensor:
        """The fixed views (B, 3, H, W) of these numbers."""
        count = self._settings.fixed_views or 1
        visits = [Visit(*divmod(slot, count)) for slot in slots]
        return self._augment([self._samples[visit.sample] for visit in visits], [self._keys(visit, 0, 0) for visit in visits])

    def files(self, update: int) -> list[DataFile]:
        """The image files behind the views of an update."""
        return self._samples.files(update)

    def _read(self, index: int) -> np.ndarray:
        return read_image(self._files[index])

    def _keys(self, visit: Visit, update: int, position: int) -> Keys:
        """What a view is drawn from: the image and which of its views it is where they are fixed, else its place in the run."""
        title, seed = self._reading.title, self._reading.seed
        if self._settings.fixed_views is not None:
            return ("fixed view", title, seed, visit.sample, visit.earlier % self._settings.fixed_views)
        return ("view", title, seed, update, position)

    def _slot(self, visit: Visit) -> int:
        count = self._settings.fixed_views
        return -1 if count is None else visit.sample * count + visit.earlier % count


def draw_masks(batch: int, patches: int, probability: float, ratio: float, generator: torch.Generator) -> Tensor:
    """Masks (M, patches), bool, for the first M = round(batch × probability) images of a batch.

    Each hides a random round(patches × ratio) of its patches; which ones is drawn for each image on its own. The rest of
    the masked view is clean, so it needs no mask (released: mask_first_n).
    """
    masked_images = round(batch * probability)
    hidden = round(patches * ratio)
    order = torch.rand(masked_images, patches, generator=generator).argsort(dim=1)
    return order < hidden
