"""Retention: the newest backups with a valid seal are kept, up to a number, and the contents that any kept backup names.

Whoever can write the place can put manifests there. So one without a fitting seal is never counted: else a few of them, newer
than ours, would have ours removed.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from gkd_core.errors import DataError
from gkd_core.operations.backup.backup_store import BackupStore
from gkd_core.operations.backup.seal import VARIABLE, proven


@dataclass(frozen=True)
class Pruned:
    """What was removed: names of backups, and contents that no backup named any more, with their size in bytes.

    Attributes:
        uncounted: backups that stay although nothing proves who made them.
    """

    backups: tuple[str, ...]
    contents: int
    size: int
    uncounted: tuple[str, ...]


def prune(backup_store: BackupStore, keep: int, key: Path) -> Pruned:
    """Keep the newest whole backups that are proven, and remove what is older, and what unfinished ones have left.

    A backup that is not proven goes when as many proven ones are newer; until then it stays, with its contents. Not while a
    backup is made: that one would find its contents gone, say so, and write no manifest.

    Args:
        key: file of the key that seals are checked with.

    Raises:
        DataError: there are backups and none is proven: nothing says which are ours, and nothing was removed.
        GkdError: a manifest that stays cannot be read, so that nobody knows what it names; nothing was removed then.
    """
    backup_store.sweep()
    names = backup_store.names()
    counted = [name for name, _ in islice(proven(backup_store, key), keep)]
    if names and not counted:
        reason = "no key is there" if not key.exists() else "no seal fits it"
        raise DataError(
            f"{backup_store}: no backup is proven by the key at {key} ({reason}), nothing was removed; set {VARIABLE}"
        )
    oldest = counted[-1] if len(counted) == keep else ""
    going, staying = [name for name in names if name < oldest], [name for name in names if name >= oldest]
    named = {sha256 for name in staying for sha256 in backup_store.read(name).contents}
    for name in going:  # before their contents: a backup without some of them is none
        backup_store.forget(name)
    unnamed = {sha256: size for sha256, size in backup_store.contents().items() if sha256 not in named}
    for sha256 in unnamed:
        backup_store.drop(sha256)
    uncounted = tuple(name for name in staying if name not in counted)
    return Pruned(tuple(going), len(unnamed), sum(unnamed.values()), uncounted)
