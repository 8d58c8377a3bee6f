"""The databases of a cluster's services: each belongs to a role that can do nothing else, and no other role can connect.

Passwords come from the environment and go to the server as a SCRAM verifier, made here: not even a server that logs its
statements writes one down.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from gkd_core.errors import PlatformError
from gkd_core.operations.bootstrap.outcome import Outcome
from gkd_core.operations.postgres import (
    CLIENT_ENCODING,
    MLFLOW,
    MLFLOW_USERS,
    PREFECT,
    VARIABLE,
    check_encoding,
    first_line,
    make_database,
)

EXAMPLE = "postgresql://postgres@database:5432/postgres"
CONNECT_SECONDS = 10
OLDEST = 150000  # before version 15 everybody could make tables in every database that they may enter
PUBLIC_RIGHTS = ("CONNECT", "TEMPORARY")  # what PostgreSQL gives everybody on a new database
RIGHTS = {"rolsuper": "SUPERUSER", "rolcreatedb": "CREATEDB", "rolcreaterole": "CREATEROLE", "rolreplication": "REPLICATION"}


@dataclass(frozen=True)
class Owner:
    """A role that a service signs in with.

    Attributes:
        password_variable: environment variable that has its password.
        databases: what it owns.
    """

    name: str
    password_variable: str
    databases: tuple[str, ...]


OWNERS = (
    Owner("gkd_prefect", "GKD_PREFECT_DATABASE_PASSWORD", (PREFECT,)),
    Owner("gkd_mlflow", "GKD_MLFLOW_DATABASE_PASSWORD", (MLFLOW, MLFLOW_USERS)),
)


def bootstrap_databases(
    address: str, owners: Sequence[Owner] = OWNERS, environment: Mapping[str, str] = os.environ
) -> list[Outcome]:
    """Make roles and databases, or bring those that are there to what they should be. Doing it again changes nothing.

    Args:
        address: of an administrator, as `postgresql://user@host:port/database`. A password in it is used and never shown;
            PGPASSWORD and the other variables of libpq are better.

    Raises:
        PlatformError: the server cannot be reached, is too old or refuses; a password is missing; or a database of that
            name belongs to somebody else, or has another encoding than UTF-8.
    """
    passwords = {owner.name: _password(owner, environment) for owner in owners}
    outcomes = []
    with _administrator(address) as connection:
        _check_version(connection)
        for owner in owners:
            outcomes.append(_role(connection, owner, passwords[owner.name]))
            outcomes.extend(_database(connection, name, owner) for name in owner.databases)
    return outcomes


def _password(owner: Owner, environment: Mapping[str, str]) -> str:
    password = environment.get(owner.password_variable, "")
    if not password:
        raise PlatformError(f"{owner.password_variable}: unset; it is to hold the password of the database role {owner.name}")
    return password


@contextmanager
def _administrator(address: str) -> Iterator[psycopg.Connection]:
    """A connection in which each statement is a transaction; what the server refuses becomes an error of ours."""
    place = shown(address)
    try:
        with psycopg.connect(
            address, autocommit=True, connect_timeout=CONNECT_SECONDS, client_encoding=CLIENT_ENCODING
        ) as connection:
            yield connection
    except psycopg.Error as error:
        raise PlatformError(
            f"{VARIABLE}: {place}: {first_line(error)}; the role must be a superuser, or have CREATEDB and CREATEROLE"
        ) from None


def shown(address: str) -> str:
    """The address without its password; empty where it is not an address."""
    try:
        parts = conninfo_to_dict(address)
    except psycopg.Error:
        raise PlatformError(f"{VARIABLE}: not an address; expected one such as {EXAMPLE}") from None
    return f"{parts.get('user', '')}@{parts.get('host', '')}:{parts.get('port', 5432)}"


def _check_version(connection: psycopg.Connection) -> None:
    version = connection.info.server_version
    if version < OLDEST:
        raise PlatformError(f"{VARIABLE}: PostgreSQL {version // 10000}; at least {OLDEST // 10000} is needed")


def _role(connection: psycopg.Connection, owner: Owner, password: str) -> Outcome:
    title = f"role {owner.name}"
    name = sql.Identifier(owner.name)
    query = sql.SQL("SELECT {} FROM pg_roles WHERE rolname = %s").format(
        sql.SQL(", ").join(sql.Identifier(right) for right in RIGHTS)
    )
    row = connection.execute(query, [owner.name]).fetchone()
    if row is None:
        connection.execute(sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(name, _verifier(connection, owner, password)))
        return Outcome(title, "made")
    excess = [word for word, held in zip(RIGHTS.values(), row, strict=True) if held]
    if excess:
        taken = sql.SQL(" ").join(sql.SQL(f"NO{word}") for word in excess)
        connection.execute(sql.SQL("ALTER ROLE {} {}").format(name, taken))
    current = _signs_in(connection, owner, password)
    if not current:
        verifier = _verifier(connection, owner, password)
        connection.execute(sql.SQL("ALTER ROLE {} LOGIN PASSWORD {}").format(name, verifier))
    notes = [f"no longer {word}" for word in excess] + ([] if current else ["its password is that of the environment now"])
    return Outcome(title, "set" if notes else "already so", ", ".join(notes))


def _verifier(connection: psycopg.Connection, owner: Owner, password: str) -> sql.Literal:
    encrypted = connection.pgconn.encrypt_password(password.encode(), owner.name.encode(), b"scram-sha-256")
    return sql.Literal(encrypted.decode())


def _signs_in(connection: psycopg.Connection, owner: Owner, password: str) -> bool:
    """Whether the password is right. Where the server lets this role in without asking, a wrong one cannot be told."""
    info = connection.info
    try:
        psycopg.connect(
            host=info.host,
            port=info.port,
            dbname=info.dbname,
            user=owner.name,
            password=password,
            connect_timeout=CONNECT_SECONDS,
        ).close()
    except psycopg.OperationalError as error:
        # Let in, and then kept out of this one database: the password was right.
        return "permission denied for database" in str(error)
    return True


def _database(connection: psycopg.Connection, name: str, owner: Owner) -> Outcome:
    title = f"database {name}"
    row = connection.execute("SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = %s", [name]).fetchone()
    if row is None:
        _let_give_away(connection, owner)
        make_database(connection, name, owner.name)
    elif row[0] != owner.name:
        raise PlatformError(
            f"database {name}: belongs to {row[0]}, not to {owner.name}; let its owner run: "
            f"ALTER DATABASE {name} OWNER TO {owner.name}"
        )
    else:
        check_encoding(connection, name)
    closed = _close(connection, name)
    if row is None:
        return Outcome(title, "made", f"belongs to {owner.name}; nobody else may enter")
    return Outcome(title, "set", "nobody but its owner may enter now") if closed else Outcome(title, "already so")


def _let_give_away(connection: psycopg.Connection, owner: Owner) -> None:
    """An administrator who is no superuser, as in a managed service, can give a database only to a role that it belongs to."""
    me = connection.execute(
        "SELECT rolsuper OR pg_has_role(%s, 'MEMBER') FROM pg_roles WHERE rolname = current_user", [owner.name]
    )
    if not (me.fetchone() or (False,))[0]:
        connection.execute(sql.SQL("GRANT {} TO CURRENT_USER").format(sql.Identifier(owner.name)))


def _close(connection: psycopg.Connection, name: str) -> bool:
    """Take from everybody what PostgreSQL gives everybody; True where something was taken."""
    query = "SELECT " + " OR ".join("has_database_privilege('public', %s, %s)" for _ in PUBLIC_RIGHTS)
    row = connection.execute(query, [item for right in PUBLIC_RIGHTS for item in (name, right)]).fetchone()
    if row is None or not row[0]:
        return False
    connection.execute(sql.SQL("REVOKE ALL ON DATABASE {} FROM PUBLIC").format(sql.Identifier(name)))
    return True
