"""Private folders and files in places where others can write: what another user has put there is not used."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path

from gkd_core.errors import PlatformError

OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH
OTHERS = stat.S_IRWXG | stat.S_IRWXO
EVERYBODY_WRITES = stat.S_IWUSR | OTHERS_WRITE


def is_mounted_secret(file: Path) -> bool:
    """Whether a file can be changed by its mount alone: nobody may write it, on a file system that is read-only here.

    So engines of containers and Kubernetes hand a secret over: open to all users of a container that has one.
    """
    read_only = os.statvfs(file).f_flag & os.ST_RDONLY
    return bool(read_only) and not stat.S_IMODE(file.stat().st_mode) & EVERYBODY_WRITES


def make_own_folder(folder: Path, advice: str, closed: bool = True) -> None:
    """Make a private folder, or check that it is one: another user may have made a folder or link of this name.

    Args:
        advice: what to do instead of removing it.
        closed: whether one that is there already is closed to others; else they only lose the right to write to it.

    Raises:
        PlatformError: it is not ours.
        OSError: it cannot be made.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        raise PlatformError(f"{folder}: another user's, or a link; remove it, or {advice}")
    wanted = 0o700 if closed else stat.S_IMODE(found.st_mode) & ~OTHERS_WRITE
    if stat.S_IMODE(found.st_mode) != wanted:
        folder.chmod(wanted)
