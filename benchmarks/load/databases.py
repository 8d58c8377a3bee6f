"""Whether both servers' databases are well after the load, by the databases' own checks."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import psycopg

from gkd_core.operations.backup.sqlite import FILES
from gkd_core.operations.postgres import MLFLOW, PREFECT, VARIABLE, Database

# What a server keeps open when it rests: SQLAlchemy's pool is 5 connections an engine, and MLflow has more engines than one.
POOLED = 20
OPEN_SECONDS = 10.0  # a transaction that is open for longer was forgotten
BTREE_CHECK = """
    SELECT index.indexrelid::regclass::text, bt_index_check(index.indexrelid, true)
    FROM pg_index index JOIN pg_class class ON class.oid = index.indexrelid JOIN pg_am am ON am.oid = class.relam
    WHERE am.amname = 'btree' AND class.relpersistence <> 't' AND index.indisready AND index.indisvalid
"""
HEAP_CHECK = """
    SELECT class.oid::regclass::text, damage.msg
    FROM pg_class class, LATERAL verify_heapam(class.oid) damage WHERE class.relkind IN ('r', 'm', 't')
"""


class Databases(Protocol):
    """The databases of Prefect and of MLflow."""

    @property
    def name(self) -> str:
        """What they are."""

    @property
    def environment(self) -> Mapping[str, str]:
        """Variables by which `make up` finds them; may hold a password."""

    def sizes(self) -> dict[str, int]:
        """Bytes of each."""

    def unwell_at_work(self) -> list[str]:
        """What is wrong while both servers stand and no flow runs."""

    def unwell_at_rest(self) -> list[str]:
        """What is wrong once both servers have ended."""


@dataclass(frozen=True)
class SqliteFiles:
    """A file for each server, below the project."""

    project: Path
    name: str = "SQLite"
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def files(self) -> dict[str, Path]:
        """By server."""
        return {title: self.project / FILES[name] for title, name in NAMES.items()}

    def sizes(self) -> dict[str, int]:
        """Bytes of each, with what its write-ahead log holds."""
        return {name: sum(part.stat().st_size for part in _parts(file)) for name, file in self.files.items()}

    def unwell_at_work(self) -> list[str]:
        """Nothing can be told of a file that others write."""
        return []

    def unwell_at_rest(self) -> list[str]:
        """What `integrity_check` and `foreign_key_check` find."""
        return [f"{name}: {found}" for name, file in self.files.items() for found in check_sqlite(file)]


def check_sqlite(file: Path) -> list[str]:
    """What SQLite's own checks find in a file that nobody writes."""
    with closing(sqlite3.connect(file)) as database:
        try:
            damage = [row[0] for row in database.execute("PRAGMA integrity_check")]
            orphans = database.execute("PRAGMA foreign_key_check").fetchall()
        except sqlite3.DatabaseError as error:  # too damaged to be looked at
            return [f"{file.name}: {error}"]
    found = [f"{file.name}: integrity_check: {text}" for text in damage if text != "ok"]
    return found + [f"{file.name}: a row of {row[0]} refers to none in {row[2]}" for row in orphans]


def _parts(file: Path) -> list[Path]:
    return [path for path in (file, file.with_name(f"{file.name}-wal")) if path.exists()]


@dataclass(frozen=True)
class PostgresDatabases:
    """Two databases of one PostgreSQL server."""

    database: Database
    name: str = "PostgreSQL"

    @property
    def environment(self) -> Mapping[str, str]:
        """GKD_DATABASE_URL, with its password where it has one."""
        return {VARIABLE: self.database.address.render_as_string(hide_password=False)}

    def sizes(self) -> dict[str, int]:
        """Bytes of each, as the server counts."""
        return {title: self._one(name, "SELECT pg_database_size(current_database())") for title, name in NAMES.items()}

    def unwell_at_work(self) -> list[str]:
        """Deadlocks so far, transactions that were left open, connections that were not given back."""
        return [f"{title}: {found}" for title, name in NAMES.items() for found in self._activity(name)]

    def _activity(self, name: str) -> list[str]:
        deadlocks = self._one(name, "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()")
        others = "FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        connections = self._one(name, f"SELECT count(*) {others}")
        left = self._one(name, f"SELECT count(*) {others} AND now() - xact_start > interval '{OPEN_SECONDS} seconds'")
        found = [f"{deadlocks} deadlocks"] if deadlocks else []
        found += [f"{left} transactions open for more than {OPEN_SECONDS:.0f} s"] if left else []
        return found + ([f"{connections} connections, expected at most {POOLED}"] if connections > POOLED else [])

    def unwell_at_rest(self) -> list[str]:
        """Connections that outlived the servers, and what amcheck finds in every table and index."""
        found = []
        for title, name in NAMES.items():
            others = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
            left = self._one(name, others)
            found += [f"{title}: {left} connections outlived the servers"] if left else []
            found += [f"{title}: {text}" for text in self._damage(name)]
        return found

    def _damage(self, name: str) -> list[str]:
        with self._connect(name) as connection:
            connection.execute("CREATE EXTENSION IF NOT EXISTS amcheck")
            try:
                connection.execute(BTREE_CHECK).fetchall()  # raises at the first damage
            except psycopg.errors.IndexCorrupted as error:
                return [f"amcheck: {error}"]
            return [f"amcheck: {table}: {text}" for table, text in connection.execute(HEAP_CHECK).fetchall()]

    def _one(self, name: str, query: str) -> int:
        with self._connect(name) as connection:
            row: Any = connection.execute(query.encode()).fetchone()
        return int(row[0])

    def _connect(self, name: str) -> psycopg.Connection:
        return Database(self.database.address.set(database=name)).connect()


NAMES = {"Prefect": PREFECT, "MLflow": MLFLOW}
