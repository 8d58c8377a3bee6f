"""Restoring: the whole backup is checked before anything is changed; files are restored before the records that name them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from gkd_core.errors import DataError, PlatformError
from gkd_core.files import scratch_folder
from gkd_core.operations.backup.backup_store import BackupStore
from gkd_core.operations.backup.databases import Databases, check_known
from gkd_core.operations.backup.make import Part
from gkd_core.operations.backup.manifest import Backup, Dump, File, Tree
from gkd_core.operations.backup.stores import Stores
from gkd_core.operations.backup.trees import FileTree
from gkd_core.storage.trees import Stored, each

NAMES_SHOWN = 3


def check_backup(backup_store: BackupStore, backup: Backup) -> None:
    """Read every content of a backup and hold it against its digest.

    Raises:
        DataError: one is missing or damaged.
    """
    contents = sorted(backup.contents.items())

    def check(content: tuple[str, int], done: Callable[[int], None]) -> None:
        backup_store.check(*content)
        done(content[1])

    each(f"check {backup_store}", contents, [size for _, size in contents], check)


def restore(stores: Stores, backup_store: BackupStore, backup: Backup, replace: bool) -> Iterator[Part]:
    """Put a backup in place, part by part: trees, then all databases at once.

    A restore that ends midway, or is killed, leaves files and databases that are whole, each as it was or as it is in the
    backup: doing it again goes on from there. What it left half-written is removed then.

    Args:
        replace: whether databases that are not empty, and files of other content, are overwritten by those of the backup.

    Raises:
        DataError: the backup is damaged, or files are there that are not the backup's.
        PlatformError: the backup is of another kind of database, or of a newer schema than the services installed here know; a
            target is in use or not empty; or a store refuses.
    """
    for dump in backup.databases:
        if dump.kind != stores.databases.kind:
            raise PlatformError(
                f"{dump.name}: backed up from {dump.kind}, and the databases here are of {stores.databases.kind}; "
                "GKD_DATABASE_URL names a server of PostgreSQL, unset means SQLite"
            )
        check_known(dump, backup.versions)
    filled = stores.databases.check_target(backup.databases)
    there = [] if replace else _loaded_before(stores.databases, filled, backup_store)
    for tree in backup.trees:
        target = stores.tree(tree.address)
        target.sweep()
        _check_tree(target, tree, replace)
    check_backup(backup_store, backup)
    with scratch_folder("restore") as folder:
        files = {dump: folder / dump.name for dump in backup.databases if dump not in there}
        for dump, file in files.items():
            backup_store.bring(dump.sha256, dump.size, file)
        for tree in backup.trees:
            copied = _put(stores.tree(tree.address), tree, backup_store)
            yield Part(tree.address, sum(file.size for file in tree.files), len(tree.files), copied)
        stores.databases.load(files)
        for dump in backup.databases:
            yield Part(dump.name, dump.size, 1, int(dump in files))


def _loaded_before(databases: Databases, filled: Sequence[Dump], backup_store: BackupStore) -> list[Dump]:
    """Databases that are not empty; raises `PlatformError` where one is not as a restore of this very backup has left it."""
    for dump in filled:
        with scratch_folder("restore") as folder:
            backup_store.bring(dump.sha256, dump.size, folder / dump.name)
            if not databases.holds(dump, folder / dump.name):
                raise databases.not_empty(dump)
    return list(filled)


def _check_tree(target: FileTree, tree: Tree, replace: bool) -> None:
    """Raise `DataError` where the target has what the backup has not, or has otherwise, unless that may be overwritten."""
    wanted = {file.name: file for file in tree.files}
    foreign = [item.name for item in target.listed() if not _is_same(target, item, wanted.get(item.name))]
    if foreign and not replace:
        raise DataError(
            f"{target.address}: not empty: {len(foreign)} files are not the backup's, such as {', '.join(foreign[:NAMES_SHOWN])};"
            " --replace puts the backup's over those of the same name, and leaves the others"
        )


def _put(target: FileTree, tree: Tree, backup_store: BackupStore) -> int:
    there = {item.name: item for item in target.listed()}

    def put(file: File, done: Callable[[int], None]) -> bool:
        present = there.get(file.name)
        same = present is not None and _is_same(target, present, file)
        if not same:
            with target.place(file.name) as path:
                backup_store.bring(file.sha256, file.size, path)
        done(file.size)
        return not same

    return sum(each(f"restore {target.address}", tree.files, [file.size for file in tree.files], put))


def _is_same(target: FileTree, item: Stored, file: File | None) -> bool:
    return file is not None and item.size == file.size and target.digest(item) == file.sha256
