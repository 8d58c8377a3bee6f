"""Stage `prepare-data`: the images and labels of a run, whole and counted."""

from __future__ import annotations

from pathlib import Path

from gkd_core.data.catalog.load import Domain
from gkd_core.data.files.origin import Folders, Origin, Shards
from gkd_core.data.files.shards import set_folder
from gkd_core.files import atomic_folder
from gkd_core.records import MANIFEST, DataManifest, DatasetVersion
from gkd_core.stages.origin import bucket_sets
from gkd_core.stages.work import Context


def prepare_data(context: Context) -> None:
    """Render the world, where it is used, and list every dataset split of the run; each must be whole."""
    data = context.settings.data
    with atomic_folder(context.output) as folder:
        if data.world is not None:
            from gkd_core.data.world.writer import write_world

            write_world(data.world, folder)
        origin = _origin(context, folder)
        versions = tuple(_version(domain, origin) for domain in context.recipe.domains)
        DataManifest(versions=versions).write(folder / MANIFEST)


def _origin(context: Context, folder: Path) -> Origin:
    """Where the datasets lie, as seen from the stage's unfinished output."""
    data = context.settings.data
    if data.world is not None:
        return Folders(folder)
    if not data.shards_in_bucket:
        return context.origin
    from gkd_core.storage.sets import fetch_indexes

    sets = bucket_sets(context.settings, folder)
    fetch_indexes(sets, _places(context))
    return Shards(sets)


def _places(context: Context) -> list[str]:
    """The sets of shards that the run reads."""
    domains = context.recipe.domains
    images = [set_folder(domain.entry.name, domain.split, "images") for domain in domains]
    return images + [set_folder(domain.entry.name, domain.split, "labels") for domain in domains if domain.is_labelled]


def _version(domain: Domain, origin: Origin) -> DatasetVersion:
    return DatasetVersion(
        dataset=domain.entry.name,
        split=domain.split,
        folder=origin.folder(domain),
        images=len(origin.images(domain)),
        labels=len(origin.pairs(domain)) if domain.is_labelled else None,
    )
