"""How many images a split has, and how large they are: looked up where they lie, else as officially stated."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from gkd_core.data.blobs import DataFile, read_bytes
from gkd_core.data.catalog import Catalog
from gkd_core.errors import DataError
from gkd_core.settings import Settings, WorldSettings
from gkd_core.stages.recipe import benchmarks, data_origin, sources


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
        with Image.open(io.BytesIO(read_bytes(found[0]))) as image:
            return image.height, image.width
    return None if settings.data.world is not None else catalog.domain(reference)[0].image_size


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
