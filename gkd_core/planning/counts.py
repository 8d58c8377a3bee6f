"""How many images a split has, and how large they are: looked up where they lie, else as officially stated, or assumed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from gkd_core.data.catalog.load import Catalog
from gkd_core.data.files.blobs import DataFile, read_bytes
from gkd_core.data.files.pictures import size_of
from gkd_core.errors import DataError
from gkd_core.settings import Settings, WorldSettings
from gkd_core.stages.domains import benchmarks, sources
from gkd_core.stages.origin import data_origin

# Of an image that is not at hand: bytes of a pixel (ImageNet's archive has 0.6, GTA5's 1.15) and, where the catalog states no
# size either, (height, width) as of most of ImageNet.
JPEG_BYTES, PNG_BYTES = 0.6, 1.15
COMMON_SIZE = (375, 500)
JPEG_SUFFIXES = (".jpg", ".jpeg")


class Picture(NamedTuple):
    """An image to be read: its bytes, and the pixels that are to be decoded of a JPEG or of a PNG."""

    bytes: float
    jpeg_pixels: float
    png_pixels: float


def image_count(settings: Settings, catalog: Catalog, reference: str, workspace: Path) -> int | None:
    """Images of a `dataset/split`; None where they are not at hand and the catalog does not say."""
    found = _at_hand(settings, catalog, reference, workspace)
    if found:
        return len(found)
    if settings.data.world is not None:
        return _rendered(settings.data.world, settings, catalog, reference)
    entry, split = catalog.domain(reference)
    return entry.split(split).count


def image_size(settings: Settings, catalog: Catalog, reference: str, workspace: Path) -> tuple[int, int] | None:
    """(height, width) of a split's images, in pixels: of its first, or as stated; None where nobody knows."""
    found = _at_hand(settings, catalog, reference, workspace)
    if found:
        width, height = size_of(found[0])
        return height, width
    return None if settings.data.world is not None else catalog.domain(reference)[0].image_size


def picture_of(settings: Settings, catalog: Catalog, reference: str, workspace: Path) -> Picture:
    """An image of a `dataset/split`: its first, or, where none is at hand, one of the stated size and the usual bytes."""
    entry, _ = catalog.domain(reference)
    fallback = COMMON_SIZE if settings.data.world is None else settings.data.world.street_size
    height, width = image_size(settings, catalog, reference, workspace) or fallback
    pixels, jpeg = height * width, entry.images.lower().endswith(JPEG_SUFFIXES)
    found = _at_hand(settings, catalog, reference, workspace)
    size = len(read_bytes(found[0])) if found else pixels * (JPEG_BYTES if jpeg else PNG_BYTES)
    return Picture(size, pixels * jpeg, pixels * (not jpeg))


def _at_hand(settings: Settings, catalog: Catalog, reference: str, workspace: Path) -> Sequence[DataFile]:
    entry, split = catalog.domain(reference)
    try:
        return data_origin(settings, workspace).images(entry, split)
    except DataError:
        return []  # absent or not whole: a plan can do without, and prepare-data says what is wrong


def _rendered(world: WorldSettings, settings: Settings, catalog: Catalog, reference: str) -> int:
    """Images that the embedded world will have."""
    if reference == settings.data.proxy:
        return world.proxy_images
    if any(reference in source.references for source in sources(settings, catalog).values()):
        return world.train_images
    held_back = {benchmark.validation for benchmark in benchmarks(settings, catalog)}
    return world.val_images if reference in held_back else world.target_images
