"""A PostgreSQL server of our own on loopback, with a password, gone with the block."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg

from gkd_core.adapters.child import child_process
from gkd_core.loopback import LOOPBACK, free_port

DEBIAN = Path("/usr/lib/postgresql")
USER, PASSWORD = "gkd", "open sesame+1"
START_SECONDS = 60.0


@dataclass(frozen=True)
class PostgresServer:
    """Where it listens."""

    port: int
    user: str = USER
    password: str = PASSWORD

    @property
    def address(self) -> str:
        """As GKD_DATABASE_URL takes it, without the password."""
        return f"postgresql://{self.user}@{LOOPBACK}:{self.port}"

    def connect(self, database: str = "postgres") -> psycopg.Connection:
        """A connection to one of its databases."""
        return psycopg.connect(host=LOOPBACK, port=self.port, user=self.user, password=self.password, dbname=database)


def server_programs() -> Path | None:
    """The folder with initdb and postgres, the newest where there are several; None where none is installed."""
    found = sorted(DEBIAN.glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    on_path = shutil.which("initdb")
    return found[-1].parent if found else Path(on_path).resolve().parent if on_path else None


@contextmanager
def postgres_server(programs: Path) -> Iterator[PostgresServer]:
    """Start one while the block lasts. PostgreSQL refuses to run as root, so root lends it to another user."""
    folder = Path(tempfile.mkdtemp(prefix="gkd-postgres-"))
    try:
        (folder / "password").write_text(PASSWORD + "\n")
        as_user = _as_unprivileged(folder)
        data = folder / "data"
        initdb = [
            str(programs / "initdb"),
            "-D",
            str(data),
            "-U",
            USER,
            "--auth=scram-sha-256",
            f"--pwfile={folder / 'password'}",
        ]
        subprocess.run([*as_user, *initdb, "--no-sync"], check=True, capture_output=True, cwd=folder)
        server = PostgresServer(free_port())
        options = [f"listen_addresses={LOOPBACK}", f"port={server.port}", f"unix_socket_directories={folder}", "fsync=off"]
        command = [str(programs / "postgres"), "-D", str(data), *(word for option in options for word in ("-c", option))]
        with child_process([*as_user, *command], cwd=folder, log=folder / "log"):
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
            assert time.monotonic() < deadline, "PostgreSQL did not start"
            time.sleep(0.1)
