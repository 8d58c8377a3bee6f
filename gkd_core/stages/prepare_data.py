"""Stage `prepare-data`: the images and labels of a run, whole and counted."""

from __future__ import annotations

from pathlib import Path

from gkd_core.data.files.origin import Folders, Origin, Shards
from gkd_core.data.files.shards import set_folder
from gkd_core.files import atomic_folder
from gkd_core.records import MANIFEST, DataManifest, DatasetVersion
from gkd_core.stages.domains import all_domains
from gkd_core.stages.origin import bucket_sets
from gkd_core.stages.run import Context


def prepare_data(context: Context) -> None:
    """Render the world, where it is used, and list every dataset split of the run; each must be whole."""
    data = context.settings.data
    with atomic_folder(context.output) as folder:
        if data.world is not None:
            from gkd_core.data.world.writer import write_world

            write_world(data.world, folder)
        origin = _origin(context, folder)
        versions = tuple(_version(context, reference, origin) for reference in all_domains(context.settings, context.catalog))
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
    domains = [context.catalog.domain(reference) for reference in all_domains(context.settings, context.catalog)]
    images = [set_folder(entry.name, split, "images") for entry, split in domains]
    return images + [set_folder(entry.name, split, "labels") for entry, split in domains if entry.labels is not None]


def _version(context: Context, reference: str, origin: Origin) -> DatasetVersion:
    entry, split = context.catalog.domain(reference)
    images = len(origin.images(entry, split))
    labels = None if entry.labels is None else len(origin.pairs(entry, split))
    folder = origin.folder(entry, split)
    return DatasetVersion(dataset=entry.name, split=split, folder=folder, images=images, labels=labels)
