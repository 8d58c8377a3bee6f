"""A restore of PostgreSQL's databases killed before each of its statements: the same command goes on."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from gkd_core.errors import PlatformError
from gkd_core.operations.backup import databases as backup_databases
from gkd_core.operations.backup.backup_store import BackupStore, open_backup_store
from gkd_core.operations.backup.databases import DATABASES, VERSION_TABLES
from gkd_core.operations.backup.make import back_up
from gkd_core.operations.backup.postgres import PostgresDatabases
from gkd_core.operations.backup.restore import restore
from gkd_core.operations.backup.stores import Stores
from gkd_core.operations.backup.trees import FolderTree
from gkd_core.operations.bootstrap.databases import OWNERS, bootstrap_databases
from tests.integration.postgres import PostgresServer, postgres_or_skip

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

REVISION = "known"
EVERY = 4  # statement of the long beginning, and each of the last, in which databases are renamed
LAST = 9


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with postgres_or_skip() as running, pytest.MonkeyPatch.context() as patch:
        patch.setenv("PGPASSWORD", running.password)
        patch.setenv("GKD_DATABASE_URL", running.address)
        yield running


@pytest.fixture
def stores(server: PostgresServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stores:
    monkeypatch.setattr(backup_databases, "known_revisions", lambda database, kind: {REVISION})
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "model").write_text("weights")
    make_anew(server)
    for name in DATABASES:
        with sign_in(server, name) as connection:
            connection.execute(f"CREATE TABLE {VERSION_TABLES[name]} (version_num text)")
            connection.execute(f"INSERT INTO {VERSION_TABLES[name]} VALUES ('{REVISION}')")
            connection.execute("CREATE TABLE notes (number serial PRIMARY KEY, word text)")
            connection.execute("INSERT INTO notes (word) SELECT '-- ' || g || E'\\n\\\\.' FROM generate_series(1, 50) g")
    return Stores(PostgresDatabases(server.address), (FolderTree(tmp_path / "tree"),))


def sign_in(server: PostgresServer, database: str) -> Any:
    return psycopg.connect(server.address, dbname=database, autocommit=True)


def make_anew(server: PostgresServer) -> None:
    with sign_in(server, "postgres") as admin:
        found = [row[0] for row in admin.execute("SELECT datname FROM pg_database WHERE datname LIKE 'gkd%'").fetchall()]
        for name in found:
            admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
    bootstrap_databases(server.address, OWNERS, {owner.password_variable: "secret" for owner in OWNERS})


def memory(server: PostgresServer) -> dict[str, list[Any]]:
    found = {}
    for name in DATABASES:
        with sign_in(server, name) as connection:
            found[name] = connection.execute("SELECT number, word FROM notes ORDER BY 1").fetchall()
    return found


def databases(server: PostgresServer) -> set[str]:
    with sign_in(server, "postgres") as admin:
        return {row[0] for row in admin.execute("SELECT datname FROM pg_database WHERE datname LIKE 'gkd%'").fetchall()}


def put_back(stores: Stores, backup_store: BackupStore) -> None:
    list(restore(stores, backup_store, backup_store.read(backup_store.newest()), False))


def statements_until_killed(number: int, work: Callable[[], object]) -> int:
    """Run work in a child that is killed before its statement of this number; gives how many there were."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        execute = psycopg.Connection.execute

        def counted(self: Any, *arguments: Any, **options: Any) -> Any:
            os.write(writing, b".")
            counted.number += 1  # type: ignore[attr-defined]
            if counted.number == number:  # type: ignore[attr-defined]
                os.kill(os.getpid(), signal.SIGKILL)
            return execute(self, *arguments, **options)

        counted.number = 0  # type: ignore[attr-defined]
        psycopg.Connection.execute = counted  # type: ignore[method-assign]
        try:
            work()
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as stream:
        count = len(stream.read())
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) == (number > 0)
    return count


def test_the_same_command_goes_on(server: PostgresServer, stores: Stores, tmp_path: Path) -> None:
    before, backup_store = memory(server), open_backup_store(str(tmp_path / "backups"))
    list(back_up(stores, backup_store))
    make_anew(server)
    total = statements_until_killed(0, lambda: put_back(stores, backup_store))
    assert memory(server) == before
    points = sorted({*range(1, total - LAST, EVERY), *range(total - LAST, total + 1)})
    for point in points:
        make_anew(server)
        statements_until_killed(point, lambda: put_back(stores, backup_store))
        put_back(stores, backup_store)
        assert memory(server) == before, point
        assert databases(server) == set(DATABASES), point
    with sign_in(server, DATABASES[0]) as connection:
        connection.execute("UPDATE notes SET word = '-- 7' WHERE number = 7")
    with pytest.raises(PlatformError, match=f"{DATABASES[0]}: not empty"):
        put_back(stores, backup_store)
