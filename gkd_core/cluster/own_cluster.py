"""What each Ray cluster and each group of workers that we start has of its own: a private folder, a token,
and loopback to listen on.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import shlex
import shutil
import stat
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from gkd_core.errors import PlatformError

PREFIX = "gkd-ray-"
IN_USE = "in-use"
START_SECONDS = 120.0
SHORT = ("/tmp", "/var/tmp")  # mkdtemp makes a folder of our own in it, of mode 0700
# A socket's path has 107 bytes at most: ours takes 20 of them, and Ray's session_DATE_TIME_ID/sockets/plasma_store 63.
LONGEST_FOLDER = 107 - 20 - 63
# Of the memory that Ray shares among processes: what our workers hand each other there is small. By itself Ray takes a third of
# the machine's, or of a container's, whose /dev/shm is smaller than that, so that it falls back to a disk.
OBJECT_STORE_BYTES = 512 * 1024**2
# Without this Ray turns loopback into the address of a network card. (The name is historical; it works everywhere.)
LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}


@dataclass(frozen=True)
class OwnFolder:
    """A folder in use.

    Attributes:
        path: of mode 0700.
        mark: the open file whose lock says so; a child that is given it holds the folder too.
    """

    path: Path
    mark: IO[str]

    @property
    def ray(self) -> Path:
        """Ray's temporary folder. One further down, because Ray opens to everybody the one that it is given."""
        return self.path / "r"


@contextmanager
def own_folder() -> Iterator[OwnFolder]:
    """A folder of our own for files and sockets while the block lasts, and then for as long as a child holds its mark.

    Ray's sockets need a short path, so it cannot lie in the project.

    Raises:
        PlatformError: there is no folder with a short path that we may write to.
    """
    sweep_folders()
    path = Path(tempfile.mkdtemp(prefix=PREFIX, dir=_short_folder()))
    try:
        with (path / IN_USE).open("w") as mark:
            fcntl.flock(mark, fcntl.LOCK_SH)
            yield OwnFolder(path, mark)
    finally:
        shutil.rmtree(path, ignore_errors=True)


def plain_python(folder: Path) -> str:
    """A path of this Python that no shell takes apart, as Ray pastes it into command lines unquoted.

    Where that of its environment has a space, say, it leads through a link in the folder.
    """
    if shlex.quote(sys.executable) == sys.executable:
        return sys.executable
    link = folder / "python"
    if not link.is_symlink():
        link.symlink_to(sys.prefix)
    return str(link / Path(sys.executable).relative_to(sys.prefix))


def _folders() -> list[Path]:
    """Where folders of ours may lie, in the order of choice: the system's temporary one, then those of short paths."""
    return list(dict.fromkeys(Path(name) for name in (tempfile.gettempdir(), *SHORT)))


def _is_short(folder: Path) -> bool:
    return len(os.fsencode(folder)) <= LONGEST_FOLDER


def _short_folder() -> Path:
    usable = [folder for folder in _folders() if _is_short(folder) and os.access(folder, os.W_OK | os.X_OK)]
    if not usable:
        raise PlatformError(
            f"TMPDIR: {tempfile.gettempdir()} is too long for Ray's sockets, whose folder has at most {LONGEST_FOLDER} bytes, "
            f"and {' and '.join(SHORT)} cannot be written to; set TMPDIR to a short path, or compute.workers=0 to train here"
        )
    return usable[0]


def sweep_folders() -> list[str]:
    """Remove the folders of those that ended without a chance to; returns their paths. Those of other users stay."""
    removed = []
    for folder in (found for place in _folders() for found in sorted(place.glob(f"{PREFIX}*"))):
        if _is_ours(folder) and not _is_in_use(folder):
            shutil.rmtree(folder, ignore_errors=True)
            removed.append(str(folder))
    return removed


def own_access() -> dict[str, str]:
    """Variables that let one into a new cluster, by a token that was never used before.

    The token goes by the environment, which only we can read, so that there is no file whose mode would matter: with neither,
    Ray makes one token for all clusters of a user and writes it to a file that everybody may read. It goes before any file
    that RAY_AUTH_TOKEN_PATH names.
    """
    return {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}


def _is_ours(folder: Path) -> bool:
    try:
        found = folder.lstat()  # of a link itself: others may have laid it
    except FileNotFoundError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid()


def _is_in_use(folder: Path) -> bool:
    try:
        with (folder / IN_USE).open() as mark:
            fcntl.flock(mark, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        # Another process makes it just now, or is just removing it.
        return folder.exists() and time.time() - folder.stat().st_mtime < START_SECONDS
    except OSError:  # held by a living process; or no mark that could be, and then nobody knows
        return True
    return False
