"""How many images a split has, and how large they are: looked up where they lie, else as officially stated, or assumed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from gkd_core.data.catalog.load import Domain
from gkd_core.data.files.blobs import DataFile, read_bytes
from gkd_core.data.files.pictures import size_of
from gkd_core.errors import DataError
from gkd_core.settings import WorldSettings
from gkd_core.stages.recipe import Recipe

# Of an image that is not at hand: bytes of a pixel (ImageNet's archive has 0.6, GTA5's 1.15) and, where the catalog states no
# size either, (height, width) as of most of ImageNet.
JPEG_BYTES, PNG_BYTES = 0.6, 1.15
COMMON_SIZE = (375, 500)
JPEG_SUFFIXES = (".jpg", ".jpeg")


class ImageSize(NamedTuple):
    """How large an image is: its bytes, and the pixels to decode, of a JPEG or of a PNG."""

    bytes: float
    jpeg_pixels: float
    png_pixels: float


def image_count(recipe: Recipe, domain: Domain, workspace: Path) -> int | None:
    """Images of a domain; None where they are not at hand and the catalog does not say."""
    found = _at_hand(recipe, domain, workspace)
    if found:
        return len(found)
    world = recipe.settings.data.world
    return domain.rule.count if world is None else _rendered(world, recipe, domain.reference)


def image_size(recipe: Recipe, domain: Domain, workspace: Path) -> tuple[int, int] | None:
    """(height, width) of a domain's images, in pixels: of its first, or as stated; None where nobody knows."""
    found = _at_hand(recipe, domain, workspace)
    if found:
        width, height = size_of(found[0])
        return height, width
    return None if recipe.settings.data.world is not None else domain.entry.image_size


def image_to_read(recipe: Recipe, domain: Domain, workspace: Path) -> ImageSize:
    """An image of a domain: its first, or, where none is at hand, one of the stated size and the usual bytes."""
    world = recipe.settings.data.world
    fallback = COMMON_SIZE if world is None else world.street_size
    height, width = image_size(recipe, domain, workspace) or fallback
    pixels, jpeg = height * width, domain.entry.images.lower().endswith(JPEG_SUFFIXES)
    found = _at_hand(recipe, domain, workspace)
    size = len(read_bytes(found[0])) if found else pixels * (JPEG_BYTES if jpeg else PNG_BYTES)
    return ImageSize(size, pixels * jpeg, pixels * (not jpeg))


def _at_hand(recipe: Recipe, domain: Domain, workspace: Path) -> Sequence[DataFile]:
    try:
        return recipe.origin(workspace).images(domain)
    except DataError:
        return []  # absent or not whole: a plan can do without, and prepare-data says what is wrong


def _rendered(world: WorldSettings, recipe: Recipe, reference: str) -> int:
    """Images that the embedded world will have."""
    if reference == recipe.settings.data.proxy:
        return world.proxy_images
    if any(reference in source.references for source in recipe.sources.values()):
        return world.train_images
    held_back = {benchmark.validation for benchmark in recipe.benchmarks}
    return world.val_images if reference in held_back else world.target_images
