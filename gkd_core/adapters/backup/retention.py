"""Which backups stay: the newest so many, and of the contents those that they name."""

from __future__ import annotations

from dataclasses import dataclass

from gkd_core.adapters.backup.vault import Vault


@dataclass(frozen=True)
class Pruned:
    """What was removed: names of backups, and contents that no backup named any more, with their size in bytes."""

    backups: tuple[str, ...]
    contents: int
    size: int


def prune(vault: Vault, keep: int) -> Pruned:
    """Keep the newest whole backups, and remove the others, and what unfinished ones have left.

    Not while a backup is made: that one would find its contents gone, say so, and write no manifest.

    Raises:
        GkdError: a manifest that stays cannot be read, so that nobody knows what it names; nothing was removed then.
    """
    vault.sweep()
    names = vault.names()
    going, staying = names[:-keep], names[-keep:]
    named = {sha256 for name in staying for sha256 in vault.read(name).contents}
    for name in going:  # before their contents: a backup without some of them is none
        vault.forget(name)
    unnamed = {sha256: size for sha256, size in vault.contents().items() if sha256 not in named}
    for sha256 in unnamed:
        vault.drop(sha256)
    return Pruned(tuple(going), len(unnamed), sum(unnamed.values()))
