"""Folders and files of this user's own, in places where others write too: what somebody else has laid there is not used."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from gkd_core.errors import PlatformError

OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH
OTHER_LOCK = "remove it, or set TMPDIR to a folder of this user's own"


def make_own_folder(folder: Path, advice: str, closed: bool = True) -> None:
    """Make a folder that nobody else enters, or see that it is one: another user may have laid one of this name, or a link.

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


@contextmanager
def own_lock_file(path: Path) -> Iterator[int]:
    """Give the descriptor of a file to lock, made where it is not there.

    Raises:
        PlatformError: it is another user's, a link, or no file.
    """
    try:
        # Not blocking: a named pipe that somebody laid there would be waited for.
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, 0o600)
    except OSError as error:
        raise PlatformError(f"{path}: cannot be opened as a lock ({error.strerror}); {OTHER_LOCK}") from None
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode) or found.st_uid != os.getuid():
            raise PlatformError(f"{path}: another user's, or no file; {OTHER_LOCK}")
        yield descriptor
    finally:
        os.close(descriptor)
