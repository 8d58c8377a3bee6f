"""The address of the database server: what is taken, and that its password stays ours."""

from __future__ import annotations

import pytest

from gkd_core.errors import PlatformError
from gkd_core.operations.postgres import Database, database_named
from gkd_core.system.loopback import free_port

SECRET = "p@ss/w:rd"
GIVEN = "postgresql://ann:p%40ss%2Fw%3Ard@db.example:5433"


def named(address: str) -> Database:
    database = database_named({"GKD_DATABASE_URL": address})
    assert database is not None
    return database


@pytest.mark.parametrize("environment", [{}, {"GKD_DATABASE_URL": ""}])
def test_unset_means_sqlite(environment: dict[str, str]) -> None:
    assert database_named(environment) is None


def test_each_server_gets_its_driver_database_and_the_password_as_it_was() -> None:
    from sqlalchemy.engine import make_url

    database = named(GIVEN)
    for address, driver, name in (
        (database.mlflow_address, "postgresql+psycopg", "gkd_mlflow"),
        (database.prefect_address, "postgresql+asyncpg", "gkd_prefect"),
    ):
        url = make_url(address)
        assert (url.drivername, url.database, url.password, url.host, url.port) == (driver, name, SECRET, "db.example", 5433)


def test_no_text_of_it_has_the_password() -> None:
    database = named(GIVEN)
    assert database.shown == "postgresql://ann@db.example:5433"
    for text in (repr(database), str(database), database.shown):
        assert "p%40ss" not in text
        assert SECRET not in text


def test_without_a_password_none_is_made_up() -> None:
    assert named("postgresql://ann@localhost").mlflow_address == "postgresql+psycopg://ann@localhost:5432/gkd_mlflow"


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("mysql://ann:hidden@host", r"given mysql://…; allowed: postgresql://user@127.0.0.1:5432"),
        ("postgresql://host:5432", "user and host are needed"),
        ("postgresql://ann:hidden@", "user and host are needed"),
        ("hidden", "not an address"),
        ("postgresql://ann:hidden@host:port", "not an address"),
        ("postgresql://ann:hidden@host?sslmode=require", "set PGSSLMODE"),
    ],
)
def test_what_is_no_address_is_one_line_without_what_was_given(address: str, words: str) -> None:
    with pytest.raises(PlatformError, match=words) as caught:
        database_named({"GKD_DATABASE_URL": address})
    assert "hidden" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_server_that_is_not_there_is_one_line_that_says_what_to_check() -> None:
    port = free_port()
    with pytest.raises(
        PlatformError, match=rf"GKD_DATABASE_URL: postgresql://ann@127.0.0.1:{port}: .*check host and port"
    ) as caught:
        named(f"postgresql://ann:hidden@127.0.0.1:{port}").create_databases()
    assert "hidden" not in str(caught.value)
    assert "\n" not in str(caught.value)
