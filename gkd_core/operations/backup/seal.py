"""The seal of a backup proves that a holder of the key made it. A restore writes databases and files, so it requires one.

Digests in a backup say that it is whole, and whoever can write the place can make others. The seal is HMAC-SHA256 of the
manifest, which names every content by its digest. The key lies apart from the backups: a file that `GKD_BACKUP_KEY_FILE` names,
else one in the user's own configuration, made by the first backup. Whoever has lost it pins the manifest's digest, which `backup`
prints.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path

from gkd_core.errors import DataError, PlatformError
from gkd_core.operations.backup.backup_store import BackupStore
from gkd_core.operations.backup.manifest import Backup, decode
from gkd_core.system.server_keys import write_private

VARIABLE = "GKD_BACKUP_KEY_FILE"
KEY_BYTES = 32
SHORTEST = 32  # characters


def key_file(environment: Mapping[str, str] = os.environ) -> Path:
    """Where the key lies: as named, else in the user's configuration."""
    if named := environment.get(VARIABLE):
        return Path(named)
    return Path(environment.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "gkd" / "backup.key"


def seal(backup_store: BackupStore, name: str, file: Path) -> str:
    """Seal a backup, with a key that is made where there is none; gives the SHA-256 of its manifest.

    Raises:
        PlatformError: the key cannot be made or read, or others can read it.
    """
    if not file.exists():
        try:
            write_private(file, secrets.token_hex(KEY_BYTES) + "\n")
        except OSError as error:
            reason = f"no key, and none can be made ({error.strerror})"
            raise PlatformError(f"{file}: {reason}; set {VARIABLE} to a file of 0600") from None
    text = backup_store.manifest(name)
    backup_store.put_seal(name, _seal_of(text, _read(file)))
    return hashlib.sha256(text).hexdigest()


def check_seal(backup_store: BackupStore, name: str, file: Path, pinned: str | None) -> Backup:
    """Hold a backup's manifest against a digest that was pinned, else against its seal.

    Returns:
        the backup, of the very bytes that were judged.

    Raises:
        DataError: it does not fit, or there is neither a pinned digest nor a key and a seal.
        PlatformError: the key cannot be read, or others can read it.
    """
    text = backup_store.manifest(name)
    if pinned is not None:
        if not re.fullmatch("[0-9a-f]{64}", pinned):
            raise DataError(f"--manifest-sha256: given {pinned[:80]!r}; expected the 64 hexadecimal digits that `backup` printed")
        if not hmac.compare_digest(hashlib.sha256(text).hexdigest(), pinned):
            raise DataError(
                f"{backup_store}: backup {name}: its manifest has another digest than the one given; do not restore it"
            )
        return decode(backup_store, name, text)
    advice = f"set {VARIABLE} to the key of who made it, or give the digest that `backup` printed: --manifest-sha256"
    if not file.exists():
        raise DataError(f"{backup_store}: backup {name}: nothing proves who made it: no key at {file}; {advice}")
    found = backup_store.seal(name)
    if found is None:
        raise DataError(f"{backup_store}: backup {name}: has no seal, so nothing proves who made it; {advice}")
    if not hmac.compare_digest(found, _seal_of(text, _read(file))):
        raise DataError(f"{backup_store}: backup {name}: its seal does not fit the key at {file}; do not restore it, or {advice}")
    return decode(backup_store, name, text)


def proven(backup_store: BackupStore, file: Path) -> Iterator[tuple[str, Backup]]:
    """Backups whose seal fits the key, with their names, the newest first; none where there is no key."""
    for name in reversed(backup_store.names() if file.exists() else ()):
        try:
            found = check_seal(backup_store, name, file, None)
        except DataError:  # somebody else's, or damaged
            continue
        yield name, found


def newest_proven(backup_store: BackupStore, file: Path) -> Backup | None:
    """The newest backup whose seal fits the key: what others have put there tells a new backup nothing."""
    return next((found for _, found in proven(backup_store, file)), None)


def _seal_of(manifest: bytes, key: bytes) -> str:
    return hmac.new(key, manifest, hashlib.sha256).hexdigest()


def _read(file: Path) -> bytes:
    try:
        status, key = file.stat(), file.read_bytes().strip()
    except OSError as error:
        raise PlatformError(f"{file}: cannot be read ({error.strerror}); {VARIABLE} names the key of backups") from None
    if status.st_mode & (stat.S_IRWXG | stat.S_IRWXO) and os.access(file, os.W_OK):
        raise PlatformError(f"{file}: others can read or change it; chmod 600 {file}")
    if len(key) < SHORTEST:
        raise PlatformError(f"{file}: a key of {len(key)} characters; expected {SHORTEST} or more (openssl rand -hex 32)")
    return key
