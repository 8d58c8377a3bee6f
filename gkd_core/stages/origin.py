"""Where a run's datasets lie, by its settings."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from gkd_core.data.catalog.load import Domain
from gkd_core.data.files.origin import Folders, LocalSets, Origin, Shards
from gkd_core.errors import SettingsError
from gkd_core.paths import DATA
from gkd_core.settings import Settings

if TYPE_CHECKING:
    from gkd_core.storage.sets import S3Sets


def data_root(settings: Settings) -> Path:
    """The folder that the datasets lie in as they unpack: the rendered world, or the user's own.

    Raises:
        SettingsError: the settings name shards.
    """
    if settings.data.shards is not None:
        raise SettingsError("data.shards: this needs the datasets as they unpack; set data.root, and data.shards to null")
    return DATA if settings.data.root is None else Path(settings.data.root)


def label_names_file(settings: Settings, domain: Domain) -> Path | None:
    """The file of a dataset that says which id each of its classes has, relative to the workspace.

    None where the ids stand in the catalog, and where the dataset lies in shards, which do not bring the file.
    """
    if domain.entry.label_names is None or settings.data.shards is not None:
        return None
    return domain.entry.dataset_folder(data_root(settings)) / domain.entry.label_names


def data_origin(settings: Settings, workspace: Path) -> Origin:
    """Where the datasets lie, in folders or in shards; paths of the settings are relative to the workspace."""
    if settings.data.shards_in_bucket:
        return Shards(bucket_sets(settings, workspace / DATA))
    if settings.data.shards is not None:
        return Shards(LocalSets(workspace / settings.data.shards))
    return Folders(workspace / data_root(settings))


def bucket_sets(settings: Settings, indexes: Path) -> S3Sets:
    """The shards of a bucket; `indexes` is the folder of the copies of their indexes, which `prepare-data` makes."""
    from gkd_core.storage.keys import Location
    from gkd_core.storage.sets import S3Sets

    compute = settings.compute
    return S3Sets(Location.parse(str(settings.data.shards)), indexes, compute.shard_cache, compute.shard_cache_bytes)
