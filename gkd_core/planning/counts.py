"""How many images a split has: counted where they lie, else as officially stated."""

from __future__ import annotations

from pathlib import Path

from gkd_core.data.catalog import Catalog
from gkd_core.data.reading import list_images
from gkd_core.errors import DataError
from gkd_core.settings import Settings, WorldSettings
from gkd_core.stages.recipe import benchmarks, data_root, sources


def image_count(settings: Settings, catalog: Catalog, reference: str, workspace: Path) -> int | None:
    """Images of a `dataset/split`; None where they are not at hand and the catalog does not say."""
    entry, split = catalog.domain(reference)
    root = workspace / data_root(settings)
    if entry.dataset_folder(root).is_dir():
        try:
            return len(list_images(entry, root, split))
        except DataError:
            pass  # half a dataset: prepare-data says what is wrong with it, a plan can do without
    if settings.data.world is not None:
        return _rendered(settings.data.world, settings, catalog, reference)
    return entry.split(split).count


def _rendered(world: WorldSettings, settings: Settings, catalog: Catalog, reference: str) -> int:
    """Images that the embedded world will have."""
    if reference == settings.data.proxy:
        return world.proxy_images
    if reference in sources(settings, catalog).values():
        return world.train_images
    held_back = {benchmark.validation for benchmark in benchmarks(settings, catalog)}
    return world.val_images if reference in held_back else world.target_images
