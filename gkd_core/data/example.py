"""A small batch of real images, by which a model's page shows what it takes."""

from __future__ import annotations

import torch

from gkd_core.data.augment.transforms import resized, to_float
from gkd_core.data.catalog.load import Catalog
from gkd_core.data.files.origin import Origin
from gkd_core.data.files.reading import read_image

IMAGES = 2  # a batch of one would be exported as always one
SHADES = 16  # in a JSON file a coarse value takes six characters, a fine one twenty


def example_batch(origin: Origin, catalog: Catalog, reference: str, window: tuple[int, int]) -> torch.Tensor:
    """The first images of a `dataset/split`, each shrunk or stretched to the window: (2, 3, H, W), float32 in 0..1.

    Values are rounded to sixteenths: the example is stored as text, and is to be looked at, not to be measured on.

    Raises:
        DataError: an image is missing or unreadable.
    """
    entry, split = catalog.domain(reference)
    files = list(origin.images(entry, split)[:IMAGES])
    files = [files[index % len(files)] for index in range(IMAGES)]
    batch = torch.stack([resized(to_float(read_image(file)), window) for file in files])
    return (batch.clamp(0, 1) * SHADES).round() / SHADES
