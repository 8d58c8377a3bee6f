"""Making a backup: databases first, then files, then the manifest that completes it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version

from gkd_core.errors import TransientError
from gkd_core.files import scratch_folder
from gkd_core.operations.backup.backup_store import BackupStore
from gkd_core.operations.backup.manifest import Backup, Dump, File, Tree
from gkd_core.operations.backup.stores import Stores
from gkd_core.operations.backup.trees import FileTree
from gkd_core.records import sha256_of
from gkd_core.storage.trees import Stored, each

STACK = ("gkd", "prefect", "mlflow", "dvc", "ray", "sqlalchemy")


@dataclass(frozen=True)
class Part:
    """What was done with one database or tree: its files, and those of them that had to be copied now."""

    name: str
    size: int
    files: int
    copied: int


def back_up(stores: Stores, backup_store: BackupStore, before: Backup | None = None) -> Iterator[Part | str]:
    """Back all stores up, part by part; the last that is given is the name of the backup.

    Databases come first: a record that is in them names files that were there before it, so all files that they name are in the
    backup. Files made meanwhile may be in it without a record, which is harmless.

    Args:
        before: an earlier backup that is known to be ours: files of a bucket that it has are not read again.

    Raises:
        GkdError: a store, or the place of the backups, refuses or fails. No manifest is written then: what was copied is
            no backup, and is not copied again by the next.
    """
    backup_store.sweep()
    there = backup_store.contents()
    known = {} if before is None else _known(before)
    databases, trees = [], []
    for name in stores.databases.names():
        dump, copied = _dump(stores, backup_store, there, name)
        databases.append(dump)
        yield Part(name, dump.size, 1, copied)
    for tree in stores.trees:
        files, copied = _copy(tree, backup_store, there, known.get(tree.address, {}))
        trees.append(Tree(address=tree.address, files=tuple(files)))
        yield Part(tree.address, sum(file.size for file in files), len(files), copied)
    backup = Backup(made=datetime.now(UTC), versions=_versions(), databases=tuple(databases), trees=tuple(trees))
    kept = backup_store.contents()
    lacking = [sha256 for sha256, size in backup.contents.items() if kept.get(sha256) != size]
    if lacking:
        raise TransientError(f"{backup_store}: {len(lacking)} contents were removed meanwhile (gkd infra prune?); back up again")
    yield backup_store.finish(backup)


def _dump(stores: Stores, backup_store: BackupStore, there: dict[str, int], name: str) -> tuple[Dump, int]:
    with scratch_folder("backup") as folder:
        path = folder / name
        revision, server = stores.databases.dump(name, path)
        sha256, size = sha256_of(path), path.stat().st_size
        copied = there.get(sha256) != size
        if copied:
            backup_store.keep(path, sha256)
        return Dump(sha256=sha256, size=size, name=name, kind=stores.databases.kind, revision=revision, server=server), int(
            copied
        )


Known = dict[tuple[str, int, str], str]


def _known(backup: Backup) -> dict[str, Known]:
    """Of each address the digests of its files in a backup, by name, size and version."""
    return {
        tree.address: {(file.name, file.size, file.version): file.sha256 for file in tree.files if file.version}
        for tree in backup.trees
    }


def _copy(tree: FileTree, backup_store: BackupStore, there: dict[str, int], known: Known) -> tuple[list[File], int]:
    def keep(item: Stored, done: Callable[[int], None]) -> tuple[File, bool]:
        sha256, copied = known.get((item.name, item.size, item.etag)), False
        if sha256 is None or there.get(sha256) != item.size:
            with tree.local(item) as path:
                sha256 = sha256_of(path)
                copied = there.get(sha256) != item.size
                if copied:
                    backup_store.keep(path, sha256)
                size = path.stat().st_size
        else:
            size = item.size
        done(item.size)
        return File(name=item.name, version=item.etag, sha256=sha256, size=size), copied

    listed = tree.listed()
    results = each(f"back up {tree.address}", listed, [item.size for item in listed], keep)
    return [file for file, _ in results], sum(copied for _, copied in results)


def _versions() -> dict[str, str]:
    found = {}
    for package in STACK:
        try:
            found[package] = version(package)
        except PackageNotFoundError:  # the image of the servers has no Ray and no DVC
            continue
    return found
