"""Databases of the local platform on SQLite, copied by SQLite's own backup: as of one moment, whole or not at all."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

from gkd_core.errors import PlatformError
from gkd_core.files import make_folders, scratch_folder
from gkd_core.operations.backup.databases import VERSION_TABLES
from gkd_core.operations.backup.manifest import DatabaseKind, Dump
from gkd_core.operations.postgres import MLFLOW, PREFECT
from gkd_core.storage.mlflow_store import STORE
from gkd_core.system.platform_state import FOLDER, read_state
from gkd_core.system.process_marks import is_running

FILES = {MLFLOW: STORE / "mlflow.db", PREFECT: FOLDER / "prefect" / "prefect.db"}
BUSY_SECONDS = 10.0
HEADER_BYTES, BLOCK_BYTES = 100, 2**20
# Fields of the header (https://sqlite.org/fileformat.html): journal's kind, file's and schema's counters, SQLite's own version.
UNSTEADY = (slice(18, 20), slice(24, 28), slice(40, 44), slice(92, 100))


class SqliteDatabases:
    """A `Databases` of a project's files."""

    kind: DatabaseKind = "sqlite"

    def __init__(self, project: Path) -> None:
        self._project = project

    def names(self) -> list[str]:
        found = [name for name, file in FILES.items() if (self._project / file).exists()]
        if MLFLOW not in found:
            raise PlatformError(
                f"{self._project / FILES[MLFLOW]}: not there; run this in the project's folder, or name the server of PostgreSQL "
                "by GKD_DATABASE_URL"
            )
        return found

    def dump(self, name: str, path: Path) -> tuple[str, int]:
        with self._opened(name, "ro") as origin, closing(sqlite3.connect(path)) as copy:
            origin.backup(copy)
            copy.execute("PRAGMA journal_mode=DELETE")  # one file, without a log beside it
            _check(copy, self._project / FILES[name])
            return _revision(copy, name), 0

    def check_target(self, dumps: Sequence[Dump]) -> list[Dump]:
        state = read_state(self._project)
        if state is not None and is_running(state.supervisor):
            raise PlatformError("the platform runs, and would write to what is restored: make down first")
        return [dump for dump in dumps if (self._project / FILES[dump.name]).exists() and self._is_filled(dump)]

    def _is_filled(self, dump: Dump) -> bool:
        # To be written to as well: a load that was killed is rolled back by whoever opens it next, and that is a write.
        with self._opened(dump.name, "rw") as connection:
            return bool(connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0])

    def holds(self, dump: Dump, file: Path) -> bool:
        with scratch_folder("restore") as folder:
            self.dump(dump.name, folder / dump.name)
            return _content(folder / dump.name) == _content(file)

    def not_empty(self, dump: Dump) -> PlatformError:
        path = self._project / FILES[dump.name]
        return PlatformError(f"{path}: not empty; --replace puts the backup in its place, and what it has is lost")

    def load(self, files: Mapping[Dump, Path]) -> None:
        for file in files.values():
            with closing(sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True)) as copy:
                _check(copy, file)
        for dump, file in files.items():
            make_folders((self._project / FILES[dump.name]).parent)
            # One transaction of the target: a copy that is broken off is rolled back when it is opened next.
            with closing(sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True)) as copy, self._opened(dump.name, "rwc") as target:
                copy.backup(target)

    @contextmanager
    def _opened(self, name: str, mode: str) -> Iterator[sqlite3.Connection]:
        path = (self._project / FILES[name]).resolve()
        try:
            with closing(sqlite3.connect(f"{path.as_uri()}?mode={mode}", uri=True, timeout=BUSY_SECONDS)) as connection:
                yield connection
        except sqlite3.Error as error:
            raise PlatformError(f"{path}: {error}; stop what uses it, see that it is a database and the disk has room") from None


def _content(path: Path) -> str:
    """Digest of a database, without what its header counts and says of how it was last written to."""
    with path.open("rb") as stream:
        head = bytearray(stream.read(HEADER_BYTES))
        for field in UNSTEADY:
            head[field] = bytes(len(head[field]))
        digest = hashlib.sha256(head)
        while block := stream.read(BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def _check(connection: sqlite3.Connection, path: Path) -> None:
    found = connection.execute("PRAGMA integrity_check").fetchone()[0]
    if found != "ok":
        raise PlatformError(f"{path}: SQLite finds it damaged: {found}; restore the last backup that is whole")


def _revision(connection: sqlite3.Connection, name: str) -> str:
    try:
        row = connection.execute(f"SELECT version_num FROM {VERSION_TABLES[name]}").fetchone()
    except sqlite3.OperationalError:  # no such table: nothing has made a schema yet
        return ""
    return str(row[0]) if row else ""
