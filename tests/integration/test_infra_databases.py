"""The bootstrap of databases against a real PostgreSQL on loopback that asks for passwords."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from gkd_core.errors import PlatformError
from gkd_core.operations.bootstrap.databases import OWNERS, bootstrap_databases
from gkd_core.operations.postgres import Database, database_named
from tests.integration.postgres import PostgresServer, postgres_or_skip

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]

PASSWORDS = {owner.password_variable: f"canary-{owner.name}" for owner in OWNERS}


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """Address of its administrator, without the password, which is in PGPASSWORD."""
    with postgres_or_skip() as running, pytest.MonkeyPatch.context() as patch:
        patch.setenv("PGPASSWORD", running.password)
        yield f"{running.address}?application_name={running.log}"


@pytest.fixture
def fresh(server: str) -> Iterator[psycopg.Connection]:
    """The administrator, on a server without our roles and databases."""
    with psycopg.connect(server, autocommit=True) as admin:
        for owner in OWNERS:
            for name in owner.databases:
                admin.execute(f"DROP DATABASE IF EXISTS {name}")  # type: ignore[call-overload]
            admin.execute(f"DROP ROLE IF EXISTS {owner.name}")  # type: ignore[call-overload]
        yield admin


def sign_in(server: str, user: str, password: str, database: str) -> psycopg.Connection:
    return psycopg.connect(server, user=user, password=password, dbname=database, autocommit=True)


def test_services_own_their_databases_and_can_enter_no_other(server: str, fresh: psycopg.Connection) -> None:
    found = bootstrap_databases(server, OWNERS, PASSWORDS)
    assert [(finding.feature, finding.state) for finding in found] == [
        ("role gkd_prefect", "made"), ("database gkd_prefect", "made"),
        ("role gkd_mlflow", "made"), ("database gkd_mlflow", "made"), ("database gkd_mlflow_auth", "made"),
    ]  # fmt: skip
    for owner in OWNERS:
        password = PASSWORDS[owner.password_variable]
        for name in owner.databases:
            with sign_in(server, owner.name, password, name) as connection:
                connection.execute("CREATE TABLE notes (word text)")
    with pytest.raises(psycopg.OperationalError, match="permission denied for database"):
        sign_in(server, "gkd_mlflow", PASSWORDS["GKD_MLFLOW_DATABASE_PASSWORD"], "gkd_prefect")
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        sign_in(server, "gkd_mlflow", "wrong", "gkd_mlflow")
    with (
        sign_in(server, "gkd_prefect", PASSWORDS["GKD_PREFECT_DATABASE_PASSWORD"], "gkd_prefect") as connection,
        pytest.raises(psycopg.errors.InsufficientPrivilege),
    ):
        connection.execute("CREATE ROLE another")


def test_again_it_changes_nothing(server: str, fresh: psycopg.Connection) -> None:
    bootstrap_databases(server, OWNERS, PASSWORDS)
    before = fresh.execute("SELECT rolname, rolpassword FROM pg_authid ORDER BY 1").fetchall()
    found = bootstrap_databases(server, OWNERS, PASSWORDS)
    assert {finding.state for finding in found} == {"already so"}
    assert not any(finding.is_change for finding in found)
    assert fresh.execute("SELECT rolname, rolpassword FROM pg_authid ORDER BY 1").fetchall() == before


def test_what_was_loosened_is_tightened_and_a_new_password_set(server: str, fresh: psycopg.Connection) -> None:
    bootstrap_databases(server, OWNERS, PASSWORDS)
    fresh.execute("ALTER ROLE gkd_prefect SUPERUSER CREATEDB")
    fresh.execute("GRANT CONNECT ON DATABASE gkd_mlflow TO PUBLIC")
    rotated = PASSWORDS | {"GKD_MLFLOW_DATABASE_PASSWORD": "rotated"}
    found = {finding.feature: finding for finding in bootstrap_databases(server, OWNERS, rotated)}
    assert (found["role gkd_prefect"].state, found["role gkd_prefect"].note) == ("set", "no longer SUPERUSER, no longer CREATEDB")
    assert found["role gkd_mlflow"].note == "its password is that of the environment now"
    assert found["database gkd_mlflow"].state == "set"
    assert found["database gkd_prefect"].state == "already so"
    sign_in(server, "gkd_mlflow", "rotated", "gkd_mlflow").close()


def test_an_administrator_who_is_no_superuser_suffices(server: str, fresh: psycopg.Connection) -> None:
    fresh.execute("CREATE ROLE manager LOGIN CREATEDB CREATEROLE PASSWORD 'manager'")
    try:
        address = server.replace("admin@", "manager:manager@")
        assert all(finding.state == "made" for finding in bootstrap_databases(address, OWNERS, PASSWORDS))
        assert all(finding.state == "already so" for finding in bootstrap_databases(address, OWNERS, PASSWORDS))
    finally:
        for owner in OWNERS:
            for name in owner.databases:
                fresh.execute(f"DROP DATABASE {name}")  # type: ignore[call-overload]
        fresh.execute("DROP ROLE manager")


def test_no_password_is_in_the_servers_log_or_in_a_message(server: str, fresh: psycopg.Connection) -> None:
    bootstrap_databases(server, OWNERS, PASSWORDS)
    log = Path(server.partition("application_name=")[2]).read_text()
    assert "CREATE ROLE" in log
    assert "canary" not in log
    with pytest.raises(PlatformError) as caught:
        bootstrap_databases(server.replace("admin@", "admin:canary@"), OWNERS, PASSWORDS)
    assert "canary" not in str(caught.value)
    assert "password authentication failed" in str(caught.value)


def test_a_database_of_somebody_else_is_not_taken(server: str, fresh: psycopg.Connection) -> None:
    fresh.execute("CREATE DATABASE gkd_mlflow")
    with pytest.raises(PlatformError, match="gkd_mlflow: belongs to admin, not to gkd_mlflow; let its owner run: ALTER DATABASE"):
        bootstrap_databases(server, OWNERS, PASSWORDS)


@pytest.fixture(scope="module", params=["SQL_ASCII", "LATIN1"])
def old(request: pytest.FixtureRequest) -> Iterator[PostgresServer]:
    """A server of another encoding, as initdb makes one where no locale is set."""
    with postgres_or_skip(encoding=request.param) as running, pytest.MonkeyPatch.context() as patch:
        patch.setenv("PGPASSWORD", running.password)
        yield running


def encodings(server: PostgresServer) -> dict[str, str]:
    query = "SELECT datname, pg_encoding_to_char(encoding) FROM pg_database WHERE datname LIKE 'gkd%'"
    with psycopg.connect(server.address, client_encoding="utf8") as connection:
        return dict(connection.execute(query).fetchall())


def drop(server: PostgresServer, *names: str) -> None:
    with psycopg.connect(server.address, autocommit=True) as admin:
        for name in names:
            admin.execute(f"DROP DATABASE IF EXISTS {name}")  # type: ignore[call-overload]


def test_databases_are_of_utf8_on_a_server_that_is_not(old: PostgresServer) -> None:
    assert {finding.state for finding in bootstrap_databases(old.address, OWNERS, PASSWORDS)} == {"made"}
    assert encodings(old) == dict.fromkeys(("gkd_prefect", "gkd_mlflow", "gkd_mlflow_auth"), "UTF8")
    assert {finding.state for finding in bootstrap_databases(old.address, OWNERS, PASSWORDS)} == {"already so"}, "again"
    drop(old, "gkd_prefect", "gkd_mlflow", "gkd_mlflow_auth")


def test_one_of_another_encoding_is_refused_and_the_commands_named_mend_it(old: PostgresServer, tmp_path: Path) -> None:
    bootstrap_databases(old.address, OWNERS, PASSWORDS)
    drop(old, "gkd_mlflow")
    with psycopg.connect(old.address, autocommit=True) as admin:
        admin.execute("CREATE DATABASE gkd_mlflow OWNER gkd_mlflow")
    with psycopg.connect(old.address, dbname="gkd_mlflow", autocommit=True, client_encoding="utf8") as connection:
        connection.execute("CREATE TABLE notes (word text)")
        connection.execute("INSERT INTO notes VALUES ('Größe')")
    with pytest.raises(PlatformError, match="^database gkd_mlflow: its encoding is ") as refused:
        bootstrap_databases(old.address, OWNERS, PASSWORDS)
    message = str(refused.value)
    assert "\n" not in message
    first, last = message[message.index("pg_dump") :].partition(";")[0], message[message.index("pg_restore") :]
    # The commands as they stand, of the server's own version.
    user, port = old.address.partition("//")[2].partition("@")[0], str(old.port)
    where = {"PGHOST": old.host.address, "PGPORT": port, "PGUSER": user, "PATH": f"{old.programs}:{os.environ['PATH']}"}
    for step in (*first.split(" && "), "again", last):
        if step == "again":
            bootstrap_databases(old.address, OWNERS, PASSWORDS)
            continue
        subprocess.run(step.split(), cwd=tmp_path, env={**os.environ, **where}, check=True)
    assert encodings(old)["gkd_mlflow"] == "UTF8"
    with psycopg.connect(old.address, dbname="gkd_mlflow", client_encoding="utf8") as connection:
        assert connection.execute("SELECT word FROM notes").fetchall() == [("Größe",)]
    drop(old, "gkd_prefect", "gkd_mlflow", "gkd_mlflow_auth")


def test_the_local_platform_has_the_same_rule(old: PostgresServer) -> None:
    database = database_named({"GKD_DATABASE_URL": old.address.removesuffix("/postgres")})
    assert isinstance(database, Database)
    assert database.create_databases() == ["gkd_prefect", "gkd_mlflow"]
    assert set(encodings(old).values()) == {"UTF8"}
    assert database.create_databases() == []
    drop(old, "gkd_mlflow")
    with psycopg.connect(old.address, autocommit=True) as admin:
        admin.execute("CREATE DATABASE gkd_mlflow")
    with pytest.raises(PlatformError, match="gkd_mlflow: its encoding is"):
        database.create_databases()
    drop(old, "gkd_prefect", "gkd_mlflow")
