"""A PostgreSQL server of our own that asks for passwords and logs every statement; gone with the block."""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

import psycopg
import pytest

from gkd_core.system.child_process import child_process
from gkd_core.system.loopback import free_port
from tests.integration.hosts import Host

DEBIAN = Path("/usr/lib/postgresql")
ADMINISTRATOR = "admin"
START_SECONDS = 60.0


@dataclass(frozen=True)
class PostgresServer:
    """A server that runs.

    Attributes:
        programs: the folder of its version's programs.
        log: what it wrote, statements included.
        password: of its administrator; it has what an address must quote.
    """

    port: int
    programs: Path
    log: Path
    password: str = field(repr=False)
    host: Host = field(default_factory=Host)

    @property
    def address(self) -> str:
        """As GKD_DATABASE_URL takes it, without the password."""
        return f"postgresql://{ADMINISTRATOR}@{self.host.address}:{self.port}/postgres"

    @property
    def address_with_password(self) -> str:
        """The same with it, quoted."""
        return self.address.replace("@", f":{quote(self.password)}@")

    def connect(self, database: str = "postgres") -> psycopg.Connection:
        """A connection of its administrator to one of its databases."""
        return psycopg.connect(self.address, password=self.password, dbname=database)


def server_programs() -> Path | None:
    """The folder with initdb and postgres, the newest where there are several; None where none is installed."""
    found = sorted(DEBIAN.glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    on_path = shutil.which("initdb")
    return found[-1].parent if found else Path(on_path).resolve().parent if on_path else None


@contextmanager
def postgres_or_skip(host: Host | None = None, encoding: str | None = None) -> Iterator[PostgresServer]:
    """Run one while the block lasts; the test is skipped where PostgreSQL is not installed.

    Args:
        encoding: of its own databases, without a locale; None takes that of the environment's locale.
    """
    programs = server_programs()
    if programs is None:
        pytest.skip("no PostgreSQL server is installed (Debian: apt-get install postgresql)")
    with postgres_server(programs, host or Host(), encoding) as server:
        yield server


@contextmanager
def postgres_server(programs: Path, host: Host, encoding: str | None = None) -> Iterator[PostgresServer]:
    """Run one while the block lasts. PostgreSQL refuses to run as root, so root lends it to another user."""
    folder = Path(tempfile.mkdtemp(prefix="gkd-postgres-"))
    server = PostgresServer(free_port(), programs, folder / "log", f"{secrets.token_hex(8)} sesame+1", host)
    try:
        secret = folder / "password"
        secret.write_text(server.password + "\n")
        as_user = _as_unprivileged(folder)
        identity = ["-U", ADMINISTRATOR, f"--pwfile={secret}", "--auth=scram-sha-256"]
        initdb = [str(programs / "initdb"), "-D", str(folder / "data"), *identity, "--no-sync"]
        initdb += [] if encoding is None else [f"--encoding={encoding}", "--no-locale"]
        subprocess.run([*as_user, *initdb], check=True, capture_output=True, cwd=folder)
        with (folder / "data/pg_hba.conf").open("a") as rules:
            rules.write("host all all samenet scram-sha-256\n")
        options = [f"listen_addresses={host.address}", f"port={server.port}", f"unix_socket_directories={folder}"]
        options += ["fsync=off", "log_statement=all"]
        command = [str(programs / "postgres"), "-D", str(folder / "data"), *(word for each in options for word in ("-c", each))]
        with child_process([*host.prefix, *as_user, *command], cwd=folder, log=server.log):
            _wait(server)
            yield server
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _as_unprivileged(folder: Path) -> list[str]:
    if os.geteuid() != 0:
        return []
    known = {entry.pw_name for entry in pwd.getpwall()}
    user = "postgres" if "postgres" in known else "nobody"
    for path in (folder, *folder.iterdir()):
        shutil.chown(path, user)
    return ["runuser", "-u", user, "--"]


def _wait(server: PostgresServer) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            server.connect().close()
            return
        except psycopg.OperationalError:
            assert time.monotonic() < deadline, server.log.read_text()
            time.sleep(0.1)
