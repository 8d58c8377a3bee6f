"""The views that an update looks at, before any model has seen them: plain data, so that a loader process can make them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from gkd_core.data.augment.views import Augmentation, Keys, LightAugmentation, ReleasedAugmentation
from gkd_core.data.catalog.sources import Mix, whole
from gkd_core.data.files.blobs import DataFile
from gkd_core.data.files.reading import read_image
from gkd_core.data.files.store import MEMORY_BYTES, SampleStore
from gkd_core.data.files.streaming import training_order
from gkd_core.data.order.prefetch import ReadAhead
from gkd_core.data.order.sampling import Visit
from gkd_core.distill.masking import draw_masks
from gkd_core.seeding import generator
from gkd_core.settings import DistillSettings, StreamingSettings
from gkd_core.training.rank import Rank


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
        patches: patch tokens of a view on the student's grid, which masks are drawn on.
        loaders: processes that share the memory for decoded images.
        mix: the parts that the images are of; None for a single one.
        streaming: the order to read shards in; None shuffles the whole dataset.
        updates: where training ends, so that no shard is fetched for later; None where that is not known.
    """

    def __init__(
        self,
        title: str,
        seed: int,
        settings: DistillSettings,
        images: Sequence[DataFile],
        patches: int,
        rank: Rank,
        loaders: int,
        mix: Mix | None = None,
        streaming: StreamingSettings | None = None,
        updates: int | None = None,
    ) -> None:
        self._title, self._seed, self._settings = title, seed, settings
        self._files, self._patches, self._rank = images, patches, rank
        self._images = SampleStore(len(images), self._read, MEMORY_BYTES // max(1, loaders))
        self._order = training_order(
            images,
            mix or whole(len(images)),
            streaming,
            settings.batch_size,
            rank.count,
            settings.repeated_augmentation,
            title,
            seed,
        )
        repeats = settings.repeated_augmentation
        self._ahead = ReadAhead([images], self._order, streaming, settings.batch_size, rank.index, rank.count, repeats, updates)
        kind = ReleasedAugmentation if settings.augment == "released" else LightAugmentation
        self._augment: Augmentation = kind(settings.image_size, settings.crop_scale, settings.color_jitter)

    def __call__(self, update: int) -> Views:
        """The views of an update."""
        self._ahead(update)
        settings, visits = self._settings, self._visits(update)
        share = settings.batch_size // self._rank.count
        keys = [self._keys(visit, update, self._rank.index + place * self._rank.count) for place, visit in enumerate(visits)]
        draws = generator("masks", self._title, self._seed, update, self._rank.index)
        masks = draw_masks(share, self._patches, settings.mask_probability, settings.mask_ratio, draws)
        slots = torch.tensor([self._slot(visit) for visit in visits])
        return Views(self._augment([self._images[visit.sample] for visit in visits], keys), masks, slots, update)

    def fixed(self, slots: Sequence[int]) -> Tensor:
        """The fixed views (B, 3, H, W) of these numbers."""
        count = self._settings.fixed_views or 1
        visits = [Visit(*divmod(slot, count)) for slot in slots]
        return self._augment([self._images[visit.sample] for visit in visits], [self._keys(visit, 0, 0) for visit in visits])

    def files(self, update: int) -> list[DataFile]:
        """The image files behind the views of an update."""
        return [self._files[visit.sample] for visit in self._visits(update)]

    def _read(self, index: int) -> np.ndarray:
        return read_image(self._files[index])

    def _visits(self, update: int) -> list[Visit]:
        """This rank's share of an update's images: dealt out one by one, so that repeats of an image lie on different ranks."""
        return self._order.visits(update, self._settings.batch_size)[self._rank.index :: self._rank.count]

    def _keys(self, visit: Visit, update: int, position: int) -> Keys:
        """What a view is drawn from: the image and which of its views it is where they are fixed, else its place in the run."""
        if self._settings.fixed_views is not None:
            return ("fixed view", self._title, self._seed, visit.sample, visit.earlier % self._settings.fixed_views)
        return ("view", self._title, self._seed, update, position)

    def _slot(self, visit: Visit) -> int:
        count = self._settings.fixed_views
        return -1 if count is None else visit.sample * count + visit.earlier % count
