"""Real images for the check of a program, as the student is shown them."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice

import numpy as np

from gkd_core.data.catalog.entries import Protocol
from gkd_core.data.files.blobs import DataFile
from gkd_core.evaluate.inference import resized_batch
from gkd_core.export.check import MOST_IMAGES
from gkd_core.predict.pictures import Picture, picture_in


def shown_pictures(files: Iterable[DataFile], protocol: Protocol) -> list[Picture]:
    """The first images of these files, or members of shards, at the size of a protocol.

    Raises:
        DataError: one of them is missing, damaged, or no image.
    """
    return [shown_as(picture_in(file), protocol) for file in islice(files, MOST_IMAGES)]


def shown_as(picture: Picture, protocol: Protocol) -> Picture:
    """An image at the size of a protocol, in whole grey levels."""
    scaled, size = picture.scaled(protocol), protocol.input_size(picture.height, picture.width)
    resized = resized_batch(scaled.rows(0, scaled.height).unsqueeze(0), size)[0]
    levels = (resized.clamp(0, 1) * 255).round().permute(1, 2, 0).numpy()
    return Picture(np.ascontiguousarray(levels.astype(np.uint8)))
