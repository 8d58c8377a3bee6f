"""The database server that Prefect and MLflow keep their records in, where one is named: PostgreSQL.

A password comes in the address or, better, from PGPASSWORD or ~/.pgpass, which every driver reads by itself. It goes on by
environment variables alone: never into a command line, a message, a log or a state file.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field

import psycopg
from psycopg import sql
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from gkd_core.errors import PlatformError

VARIABLE = "GKD_DATABASE_URL"
EXAMPLE = "postgresql://user@127.0.0.1:5432"
PREFECT, MLFLOW = "gkd_prefect", "gkd_mlflow"
MLFLOW_USERS = "gkd_mlflow_auth"  # where MLflow asks for a password; apart from its runs, as it migrates both on its own
CONNECT_SECONDS = 5
ENCODING = "UTF8"
# Else a server that was made without a locale (SQL_ASCII) hands names to us as bytes.
CLIENT_ENCODING = "utf8"


@dataclass(frozen=True)
class Database:
    """A PostgreSQL server, and the two databases that are ours on it."""

    address: URL = field(repr=False)

    @property
    def shown(self) -> str:
        """The address without its password."""
        return f"postgresql://{self.address.username}@{self.address.host}:{self.address.port}"

    @property
    def mlflow_address(self) -> str:
        """MLflow's store, password included."""
        return self._render("postgresql+psycopg", MLFLOW)

    @property
    def prefect_address(self) -> str:
        """Prefect's store, password included."""
        return self._render("postgresql+asyncpg", PREFECT)

    def _render(self, driver: str, database: str) -> str:
        return self.address.set(drivername=driver, database=database).render_as_string(hide_password=False)

    def create_databases(self) -> list[str]:
        """Make what is not there of our two databases.

        Returns:
            the names of those made.

        Raises:
            PlatformError: the server cannot be reached, does not let us in, or does not let us make a database; or one that is
                there has another encoding than UTF-8.
        """
        made = []
        with self.connect() as connection:
            for name in (PREFECT, MLFLOW):
                if connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [name]).fetchone() is None:
                    self._create(connection, name)
                    made.append(name)
                else:
                    check_encoding(connection, name)
        return made

    def _create(self, connection: psycopg.Connection, name: str) -> None:
        try:
            make_database(connection, name)
        except psycopg.errors.DuplicateDatabase:
            return  # somebody else made it just now
        except psycopg.Error as error:
            raise PlatformError(
                f"{VARIABLE}: {self.shown}: cannot make the database {name}: {first_line(error)}; "
                f"let an administrator make {PREFECT} and {MLFLOW}, or give the user CREATEDB"
            ) from None

    def connect(self) -> psycopg.Connection:
        """A connection to the server's own database, for administration; each statement is a transaction.

        Raises:
            PlatformError: the server cannot be reached, or does not let us in.
        """
        address = self.address
        try:
            return psycopg.connect(
                host=address.host,
                port=address.port,
                user=address.username,
                password=str(address.password) if address.password is not None else None,
                dbname=address.database or "postgres",
                connect_timeout=CONNECT_SECONDS,
                autocommit=True,
                client_encoding=CLIENT_ENCODING,
            )
        except psycopg.Error as error:
            raise PlatformError(f"{VARIABLE}: {self.shown}: {first_line(error)}; {_advice(str(error))}") from None


def database_named(environment: Mapping[str, str] = os.environ) -> Database | None:
    """The server that GKD_DATABASE_URL names; None where it is unset or empty.

    Raises:
        PlatformError: the address is not that of a PostgreSQL server. What was given is not repeated: it may hold a password.
    """
    given = environment.get(VARIABLE, "")
    if not given:
        return None
    try:
        address = make_url(given)
    except (ArgumentError, ValueError):
        raise PlatformError(f"{VARIABLE}: not an address; expected one such as {EXAMPLE}") from None
    if address.drivername not in ("postgresql", "postgres"):
        raise PlatformError(f"{VARIABLE}: given {address.drivername}://…; allowed: {EXAMPLE}, or unset for SQLite")
    if not address.host or not address.username:
        raise PlatformError(f"{VARIABLE}: user and host are needed, as in {EXAMPLE}")
    if address.query:
        raise PlatformError(f"{VARIABLE}: no ?{next(iter(address.query))}=… here; set PGSSLMODE and the like in the environment")
    return Database(address.set(drivername="postgresql", port=address.port or 5432))


def make_database(connection: psycopg.Connection, name: str, owner: str | None = None) -> None:
    """Make an empty database of UTF-8, also on a server whose own encoding is another: template0 fits any."""
    words: list[sql.Composable] = [
        sql.SQL("CREATE DATABASE {} TEMPLATE template0 ENCODING {}").format(sql.Identifier(name), sql.Literal(ENCODING))
    ]
    if encoding_of(connection, "template0") != ENCODING:
        words.append(sql.SQL("LOCALE_PROVIDER libc LOCALE 'C'"))  # the server's own locale may be of its encoding alone
    if owner is not None:
        words.append(sql.SQL("OWNER {}").format(sql.Identifier(owner)))
    connection.execute(sql.SQL(" ").join(words))


def check_encoding(connection: psycopg.Connection, name: str) -> None:
    """Refuse a database of another encoding than UTF-8: PostgreSQL cannot change it in place.

    Raises:
        PlatformError: with the commands that do it.
    """
    found = encoding_of(connection, name)
    if found != ENCODING:
        raise PlatformError(
            f"database {name}: its encoding is {found}; expected {ENCODING}, as names and logs may hold any character. Stop the "
            f"servers, then: pg_dump --format=custom --file={name}.dump {name} && dropdb {name}; this command, again; and "
            f"pg_restore --dbname={name} {name}.dump"
        )


def encoding_of(connection: psycopg.Connection, name: str) -> str | None:
    """The encoding of a database of the server; None where it is not there."""
    query = "SELECT pg_encoding_to_char(encoding) FROM pg_database WHERE datname = %s"
    row = connection.execute(query, [name]).fetchone()
    return None if row is None else str(row[0])


def first_line(error: psycopg.Error) -> str:
    """What a server said, without its hints and positions."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _advice(message: str) -> str:
    if "password" in message or "authentication" in message or "no pg_hba.conf entry" in message:
        return "check the user, and the password in the address, PGPASSWORD or ~/.pgpass"
    return "check host and port, and that the server is up"
