"""Locks (flock) on open files: they go with the processes that hold the file open, however those end.

Where a file is there for its lock alone, and nobody shares or inherits that, the package `filelock` does.
"""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from gkd_core.errors import PlatformError

OTHER_LOCK = "remove it, or set TMPDIR to a folder of this user's own"


def try_lock(file: int | IO[Any]) -> bool:
    """Take the lock on an open file or folder, until it is closed; False where another has it."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


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
