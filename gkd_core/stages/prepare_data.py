"""Stage `prepare-data`: the images and labels of a run, whole and counted."""

from __future__ import annotations

from gkd_core.data.origin import Folders, Origin
from gkd_core.files import atomic_folder
from gkd_core.records import MANIFEST, DataManifest, DatasetVersion
from gkd_core.stages.recipe import Context, all_domains


def prepare_data(context: Context) -> None:
    """Render the world, where it is used, and list every dataset split of the run; each must be whole."""
    data = context.settings.data
    with atomic_folder(context.output) as folder:
        if data.world is not None:
            from gkd_core.data.world.writer import write_world

            write_world(data.world, folder)
        origin = Folders(folder) if data.world is not None else context.origin
        versions = tuple(_version(context, reference, origin) for reference in all_domains(context.settings, context.catalog))
        DataManifest(versions=versions).write(folder / MANIFEST)


def _version(context: Context, reference: str, origin: Origin) -> DatasetVersion:
    entry, split = context.catalog.domain(reference)
    images = len(origin.images(entry, split))
    labels = None if entry.labels is None else len(origin.pairs(entry, split))
    folder = origin.folder(entry, split)
    return DatasetVersion(dataset=entry.name, split=split, folder=folder, images=images, labels=labels)
