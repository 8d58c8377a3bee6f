"""Keys of the servers that we start here: loopback is no authentication, as every user and every page of this machine reaches it.

Random, a set for each platform or run, in a file that only its owner can read; from there they go to our processes by their
environment, never by a command line, a log, a state file or a parameter.
"""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import MutableMapping
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from gkd_core.errors import PlatformError
from gkd_core.files import private_file

FILE = "keys.json"
PROFILE_FILE = "prefect-profile.toml"  # from which the prefect command takes the key, by prefect.toml
USER = "gkd"
OWNER_ALONE = stat.S_IRUSR | stat.S_IWUSR
KEY_BYTES = 24
PREFECT_VARIABLE = "PREFECT_API_AUTH_STRING"
MLFLOW_VARIABLES = ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD")


class ServerKeys(BaseModel):
    """The keys of one platform.

    Attributes:
        prefect: all of what Prefect's server and its pages ask for, `user:key`.
        mlflow: password of the user `gkd`, who administers MLflow.
        forms: with which MLflow signs its sign-up form.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    prefect: str = Field(repr=False, pattern=r"^[^:\s]+:\S{16,}$")
    mlflow: str = Field(repr=False, min_length=16)
    forms: str = Field(repr=False, min_length=16)

    @classmethod
    def new(cls) -> Self:
        """Keys that nobody has had before."""
        drawn = [secrets.token_urlsafe(KEY_BYTES) for _ in range(3)]
        return cls(prefect=f"{USER}:{drawn[0]}", mlflow=drawn[1], forms=drawn[2])

    def variables(self) -> dict[str, str]:
        """Variables by which a client of ours signs in."""
        user, password = MLFLOW_VARIABLES
        return {PREFECT_VARIABLE: self.prefect, user: USER, password: self.mlflow}


def make_keys(folder: Path) -> tuple[ServerKeys, bool]:
    """The keys of a folder, made where there are none; and whether they were made now.

    Raises:
        PlatformError: there is a file of keys that is damaged, or that others can read.
    """
    make_private_folder(folder)
    found = read_keys(folder)
    if found is not None:
        return found, False
    keys = ServerKeys.new()
    write_private(folder / FILE, keys.model_dump_json(indent=1) + "\n")
    return keys, True


def read_keys(folder: Path) -> ServerKeys | None:
    """The keys of a folder; None where there are none. Raises as `make_keys`."""
    path = folder / FILE
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise PlatformError(f"{path}: cannot be read ({error.strerror}); remove it, and make up makes new keys") from None
    with os.fdopen(handle, encoding="utf-8") as stream:
        status = os.fstat(stream.fileno())
        if status.st_uid != os.getuid() or status.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise PlatformError(
                f"{path}: others may have read it (expected: yours alone, mode 0600); make down, remove it, then make up "
                "makes new ones"
            )
        try:
            return ServerKeys.model_validate_json(stream.read())
        except (ValidationError, UnicodeDecodeError):
            raise PlatformError(f"{path}: damaged; make down, remove it, and make up makes new keys") from None


def make_private_folder(folder: Path) -> None:
    """See to it that a folder is there and its owner's alone: where others may write, they could put keys of their own."""
    folder.mkdir(parents=True, exist_ok=True)
    if folder.stat().st_uid == os.getuid():
        folder.chmod(stat.S_IRWXU)


def write_private(path: Path, text: str) -> None:
    """Write a file that its owner alone can read, whole or not at all: at no moment can others."""
    with private_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def make_private(path: Path) -> None:
    """See to it that a database's file is there and its owner's alone; what SQLite puts beside it has the same mode."""
    path.parent.mkdir(parents=True, exist_ok=True)
    os.close(os.open(path, os.O_RDONLY | os.O_CREAT, OWNER_ALONE))
    for file in (path, *(path.with_name(path.name + end) for end in ("-wal", "-shm", "-journal"))):
        if file.exists() and file.stat().st_uid == os.getuid():
            file.chmod(OWNER_ALONE)


def lend_mlflow_key(address: str, served: str | None, folder: Path, environment: MutableMapping[str, str] = os.environ) -> None:
    """Sign this process in to MLflow where the address is that of the project's own platform and it has no user of its own.

    Args:
        served: address of the platform's MLflow; None where none runs.
        folder: that of the platform's keys.
    """
    if served is None or any(environment.get(name) for name in MLFLOW_VARIABLES) or not _is_same(address, served):
        return
    keys = read_keys(folder)
    if keys is not None:
        environment.update({name: keys.variables()[name] for name in MLFLOW_VARIABLES})


def _is_same(one: str, other: str) -> bool:
    first, second = urlsplit(one), urlsplit(other)
    return (first.scheme, first.netloc) == (second.scheme, second.netloc)
