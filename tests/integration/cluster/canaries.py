"""Where secrets have come to lie: every secret of the cluster is one that nothing else contains."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.integration.cluster.stack import Stack
from tests.integration.postgres import ADMINISTRATOR

SECRET = re.compile(r"[0-9a-zA-Z+/]{32,}")
BUCKETS = ("gkd-data", "gkd-mlflow", "gkd-backup")
DATABASES = ("gkd_prefect", "gkd_mlflow", "gkd_mlflow_auth")


def places_of_secrets(stack: Stack) -> list[str]:
    """Names of the files, objects and databases that hold a secret, each with the secret's name."""
    secrets = _secrets(stack)
    assert len(secrets) > 8
    found = []
    for place, content in _contents(stack):
        found += [f"{name} in {place}" for name, value in secrets.items() if value in content]
    return found


def _secrets(stack: Stack) -> dict[str, bytes]:
    files = sorted((stack.servers.folder / "secrets").iterdir())
    named = {path.name: SECRET.findall(path.read_text()) for path in files}
    found = {f"{name}[{number}]": value.encode() for name, values in named.items() for number, value in enumerate(values)}
    return {**found, "database": stack.servers.database.password.split()[0].encode(), "ray": stack.hosts.token.encode()}


def _contents(stack: Stack) -> Iterator[tuple[str, bytes]]:
    for path in _files(stack):
        yield str(path), path.read_bytes()
    for name in BUCKETS:
        for item in stack.bucket(name).objects.all():
            yield f"s3://{name}/{item.key}", item.get()["Body"].read()
    yield "PostgreSQL's log", stack.servers.database.log.read_bytes()
    for name in DATABASES:
        yield name, _dump(stack, name)


def _files(stack: Stack) -> Iterator[Path]:
    """Files of the project, of Ray's hosts, and of the servers but for what is mounted there as a pod's secrets."""
    servers = stack.servers.folder
    mounted = {servers / "secrets", *(path for path in servers.iterdir() if path.name.startswith(("Job-", "Deployment-")))}
    for folder in (stack.platform.project, stack.hosts.folder, stack.hosts.sessions, servers):
        for path in folder.rglob("*"):
            if path.is_file() and not path.is_symlink() and path.name != "ray-token" and not mounted & set(path.parents):
                yield path


def _dump(stack: Stack, database: str) -> bytes:
    server = stack.servers.database
    command = [server.programs / "pg_dump", "-h", server.host.address, "-p", str(server.port), "-U", ADMINISTRATOR, database]
    return subprocess.run(command, env={"PGPASSWORD": server.password}, capture_output=True, check=True).stdout
