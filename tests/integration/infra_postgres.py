"""A PostgreSQL server of our own on loopback that asks for passwords and logs every statement."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psycopg
import pytest

BINARIES = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
ADMINISTRATOR = "admin"


@dataclass(frozen=True)
class Postgres:
    """A server that runs; its folder has its log."""

    port: int
    folder: Path
    password: str = field(repr=False)

    @property
    def address(self) -> str:
        return f"postgresql://{ADMINISTRATOR}@127.0.0.1:{self.port}/postgres"


@contextmanager
def postgres() -> Iterator[Postgres]:
    """Run one while the block lasts; the test is skipped where PostgreSQL is not installed."""
    if not BINARIES:
        pytest.skip("no PostgreSQL server is installed")
    folder = Path(tempfile.mkdtemp(prefix="gkd-pg-"))
    secret = folder / "password"
    secret.write_text(secrets.token_hex(16))
    as_user = []
    if os.geteuid() == 0:  # PostgreSQL refuses to run as root
        shutil.chown(folder, "postgres")
        shutil.chown(secret, "postgres")
        as_user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    initdb = [BINARIES[0] / "initdb", "-D", folder / "data", "-U", ADMINISTRATOR, f"--pwfile={secret}", "-A", "scram-sha-256"]
    subprocess.run([*as_user, *initdb, "-N"], check=True, capture_output=True, cwd=folder)
    options = ["-h", "127.0.0.1", "-p", str(port), "-k", folder, "-c", "fsync=off", "-c", "log_statement=all"]
    server = [*as_user, BINARIES[0] / "postgres", "-D", folder / "data", *options]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(server, stdout=log, stderr=log)
        running = Postgres(port, folder, secret.read_text())
        try:
            _wait(running)
            yield running
        finally:
            process.terminate()
            process.wait(30)
            shutil.rmtree(folder)


def _wait(running: Postgres) -> None:
    for _ in range(300):
        try:
            psycopg.connect(running.address, password=running.password).close()
            return
        except psycopg.OperationalError:
            time.sleep(0.1)
    raise AssertionError((running.folder / "log").read_text())
