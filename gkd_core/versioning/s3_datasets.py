"""A dataset from a bucket into the project: looked at by its names, fetched with checks, pinned with where it came from."""

from __future__ import annotations

import hashlib
from typing import Any

from gkd_core.errors import DataError
from gkd_core.files import scratch_folder, settle
from gkd_core.storage.client import connect
from gkd_core.storage.download import download_file
from gkd_core.storage.keys import Location, target_file
from gkd_core.storage.trees import Stored, download_tree, list_objects
from gkd_core.versioning.dataset_store import DatasetStore, Pinned
from gkd_core.versioning.pinned_data import data_repo, note_source, pin
from gkd_core.versioning.pins import read_pin


def add_from_s3(store: DatasetStore, name: str, address: str) -> Pinned:
    """Fetch a dataset's objects into the project and pin them.

    The names are looked at before a byte is fetched. What is fetched lies in a hidden folder until it is whole, where the same
    command goes on from after it was stopped.

    Raises:
        GkdError: a key is hostile, the objects are not laid out as the entry says, the dataset is here already, or the store
            does not answer.
    """
    place, client = Location.parse(address), connect()
    path = store.new_path(name)
    objects = list_objects(client, place)
    _check_names(store, name, client, place, objects)
    target = store.project / path
    staging = target.with_name(f".{target.name}.incoming")
    download_tree(client, place, staging)
    splits = store.check_source(name, staging)
    settle(staging, target)
    with data_repo(store.project) as repo:
        pin(repo, path)
    note_source(store.project, path, str(place), _revision(objects))
    return Pinned(read_pin(store.project, path), splits)


def _check_names(store: DatasetStore, name: str, client: Any, place: Location, objects: list[Stored]) -> None:
    """Look at the layout with empty files in place of the images; lists of splits are fetched, as they decide what belongs."""
    lists = {rule.list_in_dataset for rule in store.catalog.dataset(name).splits.values()}
    with scratch_folder("layout") as temporary:
        for item in objects:
            file = target_file(temporary, item.name)
            if item.name in lists:
                download_file(client, place / item.name, file)
            else:
                file.touch()
        try:
            store.check_source(name, temporary)
        except DataError as error:
            raise DataError(str(error).replace(str(temporary), str(place))) from None


def _revision(objects: list[Stored]) -> str:
    """A digest of the names, sizes and entity tags that the bucket had."""
    lines = "".join(f"{item.name} {item.size} {item.etag}\n" for item in objects)
    return hashlib.md5(lines.encode(), usedforsecurity=False).hexdigest()
