"""A project whose platform has remembered something on SQLite, for the tests of backups."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

from gkd_core.operations.backup.sqlite import FILES
from gkd_core.operations.backup.stores import ARTIFACT_FOLDER

REVISION = "known"


def write(path: Path, words: Iterable[str]) -> None:
    """A database, as Prefect and MLflow have theirs, that remembers these words."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("PRAGMA journal_mode=WAL")  # as Prefect does
        connection.execute("CREATE TABLE IF NOT EXISTS notes (word)")
        connection.execute("CREATE TABLE IF NOT EXISTS alembic_version (version_num)")
        connection.execute("DELETE FROM alembic_version")
        connection.execute("INSERT INTO alembic_version VALUES (?)", [REVISION])
        connection.executemany("INSERT INTO notes VALUES (?)", [[word] for word in words])


def write_artifacts(project: Path, *names: str) -> None:
    """Files of MLflow, each with a content of its own."""
    for name in names:
        path = project / ARTIFACT_FOLDER / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"content of {name}")


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, by its path there."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def memory(project: Path) -> dict[str, object]:
    """All that the platform remembers."""
    found: dict[str, object] = dict(contents(project / ARTIFACT_FOLDER))
    for name, file in FILES.items():
        with closing(sqlite3.connect(project / file)) as connection:
            found[name] = connection.execute("SELECT * FROM notes").fetchall()
    return found
