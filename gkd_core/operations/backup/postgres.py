"""Databases on PostgreSQL, by its own pg_dump and pg_restore: as of one moment, and put in place all at once.

Whoever signs in, and with what password, goes to these programs by libpq's variables: never into a command line.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import psycopg
from psycopg import pq, sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from gkd_core.errors import PlatformError
from gkd_core.files import scratch_folder
from gkd_core.operations.backup.databases import DATABASES, VERSION_TABLES
from gkd_core.operations.backup.manifest import DatabaseKind, Dump
from gkd_core.operations.bootstrap.databases import CONNECT_SECONDS, shown
from gkd_core.operations.postgres import CLIENT_ENCODING, MLFLOW_USERS, VARIABLE, first_line, make_database

RESTORING, REPLACED = "restoring", "replaced"  # what a database is called while it is filled, and once it was replaced
NOT_SYSTEM = "n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname !~ '^pg_'"


class PostgresDatabases:
    """A `Databases` of the server that an address names, seen as its administrator or as the owner of the databases."""

    kind: DatabaseKind = "postgresql"

    def __init__(self, address: str) -> None:
        self.shown = shown(address)
        self._parts = {key: str(value) for key, value in conninfo_to_dict(address).items() if value is not None}
        self._home = self._parts.pop("dbname", "postgres")

    def names(self) -> list[str]:
        with self._connected(self._home) as server:
            found = {row[0] for row in server.execute("SELECT datname FROM pg_database").fetchall()}
        for name in DATABASES:
            # Users of MLflow are there where it asks for a password only.
            if name not in found and name != MLFLOW_USERS:
                raise PlatformError(
                    f"{VARIABLE}: {self.shown}: no database {name} there; is it the server of Prefect and MLflow?"
                )
        return [name for name in DATABASES if name in found]

    def dump(self, name: str, path: Path) -> tuple[str, int]:
        self._run("pg_dump", name, "--format=custom", f"--file={path}")
        with self._connected(name) as connection:
            return _revision(connection, name), connection.info.server_version // 10000

    def check_target(self, dumps: Sequence[Dump]) -> list[Dump]:
        with self._connected(self._home) as server:
            version = server.info.server_version // 10000
            for dump in dumps:
                if dump.server > version:
                    raise PlatformError(
                        f"{VARIABLE}: {self.shown}: PostgreSQL {version}; {dump.name} was backed up from {dump.server}: "
                        "restore to that version or a newer one"
                    )
                if _owner(server, dump.name) is None:
                    raise PlatformError(
                        f"{VARIABLE}: {self.shown}: no database {dump.name} there to restore; make it, empty: gkd infra bootstrap"
                    )
                self._check_unused(server, dump.name)
        return [dump for dump in dumps if self._is_filled(dump)]

    def _is_filled(self, dump: Dump) -> bool:
        with self._connected(dump.name) as connection:
            query = f"SELECT count(*) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE {NOT_SYSTEM}"
            row = connection.execute(query).fetchone()  # type: ignore[call-overload]
            return row is None or bool(row[0])

    def holds(self, dump: Dump, file: Path) -> bool:
        with scratch_folder("restore") as folder:
            own = ("--no-owner", "--no-privileges", "--no-comments")
            self._run("pg_dump", dump.name, *own, f"--file={folder / 'there'}")
            self._run("pg_restore", dump.name, *own, f"--file={folder / 'wanted'}", str(file))
            return _statements(folder / "there") == _statements(folder / "wanted")

    def not_empty(self, dump: Dump) -> PlatformError:
        return PlatformError(f"{dump.name}: not empty; --replace puts the backup in its place, and what it has is lost")

    def load(self, files: Mapping[Dump, Path]) -> None:
        with self._connected(self._home) as server:
            for name in DATABASES:
                for leftover in (f"{name}_{RESTORING}", f"{name}_{REPLACED}"):
                    server.execute(sql.SQL("DROP DATABASE IF EXISTS {}").format(sql.Identifier(leftover)))
            for dump, file in files.items():
                self._fill(server, dump.name, f"{dump.name}_{RESTORING}", file)
            for dump in files:
                self._check_unused(server, dump.name)
            with server.transaction():
                for dump in files:
                    _rename(server, dump.name, f"{dump.name}_{REPLACED}")
                    _rename(server, f"{dump.name}_{RESTORING}", dump.name)
            for dump in files:
                server.execute(sql.SQL("DROP DATABASE {}").format(sql.Identifier(f"{dump.name}_{REPLACED}")))

    def _fill(self, server: psycopg.Connection, name: str, aside: str, file: Path) -> None:
        """Make a database with the owner and the rights of the one that it will replace, and fill it."""
        owner, place = str(_owner(server, name)), sql.Identifier(aside)
        make_database(server, aside, owner)
        closed = server.execute("SELECT NOT has_database_privilege('public', %s, 'CONNECT')", [name]).fetchone()
        if closed is not None and closed[0]:
            server.execute(sql.SQL("REVOKE ALL ON DATABASE {} FROM PUBLIC").format(place))
        # As the owner, so that what is made belongs to it. A comment on an extension is the extension's owner's to make.
        rights = ("--no-owner", "--no-privileges", "--no-comments", f"--role={owner}")
        self._run("pg_restore", aside, "--exit-on-error", *rights, f"--dbname={aside}", str(file))

    def _check_unused(self, server: psycopg.Connection, name: str) -> None:
        row = server.execute("SELECT count(*) FROM pg_stat_activity WHERE datname = %s AND pid <> pg_backend_pid()", [name])
        found = row.fetchone()
        if found is not None and found[0]:
            raise PlatformError(f"{name}: {found[0]} connections to it; stop Prefect's and MLflow's servers, then restore")

    def _run(self, program: str, database: str, *arguments: str) -> None:
        command = shutil.which(program)
        if command is None:
            raise PlatformError(
                f"{program}: not installed; install PostgreSQL's client programs, of the server's version or newer (Debian: "
                "postgresql-client)"
            )
        done = subprocess.run(
            [command, "--no-password", *arguments],
            env={**os.environ, **self._variables(database)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            lines = [line for line in done.stderr.splitlines() if "error" in line or "server version" in line]
            reason = "; ".join(lines[:2]) or f"status {done.returncode}"
            raise PlatformError(
                f"{database}: {self.shown}: {reason}; see that the user may read or make it, and that disks have room"
            )

    def _variables(self, database: str) -> dict[str, str]:
        """What libpq reads in the place of the address."""
        known = {option.keyword.decode(): option.envvar for option in pq.Conninfo.get_defaults()}
        found = {str(name.decode()): self._parts[key] for key, name in known.items() if name and key in self._parts}
        return {**found, "PGDATABASE": database}

    @contextmanager
    def _connected(self, database: str) -> Iterator[psycopg.Connection]:
        """A connection in which each statement is a transaction; what the server refuses becomes an error of ours."""
        try:
            given = {
                **self._parts,
                "dbname": database,
                "connect_timeout": str(CONNECT_SECONDS),
                "client_encoding": CLIENT_ENCODING,
            }
            with psycopg.connect(make_conninfo("", **given), autocommit=True) as connection:
                yield connection
        except psycopg.Error as error:
            raise PlatformError(f"{VARIABLE}: {self.shown}: {database}: {first_line(error)}") from None


def _statements(script: Path) -> str:
    """Digest of what a script of pg_dump does, without its remarks, and the keys that it draws each time."""
    digest, in_data = hashlib.sha256(), False
    with script.open("rb") as stream:
        for line in stream:
            if in_data or not (line.startswith((b"--", b"\\restrict ", b"\\unrestrict ")) or not line.strip()):
                digest.update(line)
            in_data = line != b"\\.\n" if in_data else line.startswith(b"COPY ") and line.endswith(b"FROM stdin;\n")
    return digest.hexdigest()


def _owner(server: psycopg.Connection, name: str) -> str | None:
    row = server.execute("SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = %s", [name]).fetchone()
    return None if row is None else str(row[0])


def _rename(server: psycopg.Connection, before: str, after: str) -> None:
    server.execute(sql.SQL("ALTER DATABASE {} RENAME TO {}").format(sql.Identifier(before), sql.Identifier(after)))


def _revision(connection: psycopg.Connection, name: str) -> str:
    table = VERSION_TABLES[name]
    row = connection.execute("SELECT to_regclass(%s)", [table]).fetchone()
    if row is None or row[0] is None:  # nothing has made a schema yet
        return ""
    found = connection.execute(sql.SQL("SELECT version_num FROM {}").format(sql.Identifier(table))).fetchone()
    return str(found[0]) if found else ""
