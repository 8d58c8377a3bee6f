"""The load test's checks of databases notice damage."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from benchmarks.load.databases import check_sqlite


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "some.db"
    with closing(sqlite3.connect(file)) as database:
        database.executescript(
            "CREATE TABLE parent (id INTEGER PRIMARY KEY, name TEXT);"
            "CREATE TABLE child (parent INTEGER REFERENCES parent (id));"
            "CREATE INDEX by_name ON parent (name);"
        )
        database.executemany("INSERT INTO parent VALUES (?, ?)", [(number, f"{number:0200}") for number in range(2000)])
        database.commit()
    return file


def test_a_sound_file_passes(file: Path) -> None:
    assert check_sqlite(file) == []


def test_a_damaged_page_is_found(file: Path) -> None:
    with file.open("r+b") as stream:
        stream.seek(file.stat().st_size // 2 // 4096 * 4096)
        stream.write(b"\x55" * 4096)
    assert any("some.db" in line for line in check_sqlite(file))


def test_a_file_that_is_no_database_is_found(file: Path) -> None:
    file.write_bytes(b"no database at all" * 1000)
    assert check_sqlite(file) == ["some.db: file is not a database"]


def test_a_row_that_refers_to_none_is_found(file: Path) -> None:
    with closing(sqlite3.connect(file)) as database:
        database.execute("INSERT INTO child VALUES (12345)")
        database.commit()
    assert check_sqlite(file) == ["some.db: a row of child refers to none in parent"]
