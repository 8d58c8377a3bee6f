"""What each Ray cluster and each group of workers that we start has for itself: a folder that nobody else enters, a token,
and loopback to listen on.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

PREFIX = "gkd-ray-"
IN_USE = "in-use"
START_SECONDS = 120.0
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
    """
    sweep_folders()
    path = Path(tempfile.mkdtemp(prefix=PREFIX))
    try:
        with (path / IN_USE).open("w") as mark:
            fcntl.flock(mark, fcntl.LOCK_SH)
            yield OwnFolder(path, mark)
    finally:
        shutil.rmtree(path, ignore_errors=True)


def sweep_folders() -> list[str]:
    """Remove the folders of those that ended without a chance to; returns their paths. Those of other users stay."""
    removed = []
    for folder in sorted(Path(tempfile.gettempdir()).glob(f"{PREFIX}*")):
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
