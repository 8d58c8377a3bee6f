"""Is what the environment and settings name there, and open to us: PostgreSQL, Ray clusters, DVC's remote, buckets?

Clients of the platform are imported by the check that needs them: where one is not installed, the other checks still run.
"""

from __future__ import annotations

import configparser
import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import urlsplit

from gkd_core.errors import GkdError
from gkd_core.operations.doctor.finding import Finding, error, warning, well
from gkd_core.operations.doctor.machine import Machine
from gkd_core.operations.doctor.web import without_password

SECONDS = 20  # for an answer of Ray's command


def check_postgres(machine: Machine) -> Iterable[Finding]:
    """The database server of the platform.

    Raises:
        PlatformError: it does not answer, or refuses; the message says what to do.
    """
    from gkd_core.operations.postgres import MLFLOW, PREFECT, database_named

    database = database_named(machine.environment)
    if database is None:
        yield well("PostgreSQL", "not asked for; the platform's records are in SQLite files")
        return
    with database.connect() as connection:
        rows = connection.execute("SELECT datname FROM pg_database WHERE datname = ANY(%s)", [[PREFECT, MLFLOW]]).fetchall()
        version = connection.info.server_version // 10000
    there = sorted(name for (name,) in rows)
    databases = f"has {' and '.join(there)}" if there else "make up will make its databases"
    yield well("PostgreSQL", f"{database.shown}, version {version}; {databases}")


def check_ray(machine: Machine) -> Iterable[Finding]:
    """The clusters, by Ray's own commands, with the token that the environment has."""
    compute = machine.settings.compute
    if compute.elsewhere:
        yield _ask(["job", "list", "--address", compute.address], compute.address, "compute.address", machine)
    address = machine.environment.get("RAY_ADDRESS")
    if not address:
        yield well("Ray", "RAY_ADDRESS is unset: each run starts a cluster of its own")
    elif "://" in address:
        advice = "give host:port of the cluster's head, and run on a machine of the cluster; ray:// and http:// are not used here"
        yield warning("Ray", f"RAY_ADDRESS is {address}", advice)
    else:
        yield _ask(["status", "--address", address], address, "RAY_ADDRESS", machine)


def _ask(question: list[str], address: str, named_by: str, machine: Machine) -> Finding:
    command = [str(Path(sys.executable).with_name("ray")), *question]
    environment = {**os.environ, **machine.environment, "RAY_USAGE_STATS_ENABLED": "0"}
    advice = f"check {named_by}, that the cluster is up, and RAY_AUTH_MODE and RAY_AUTH_TOKEN_PATH"
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False, env=environment)
    except subprocess.TimeoutExpired:
        return error("Ray", f"{address}: no answer within {SECONDS} s", advice)
    except FileNotFoundError:
        return warning("Ray", f"{address}: not looked at, as ray is not installed", "uv pip install -r requirements.txt")
    if done.returncode == 0:
        nodes = done.stdout.count("node_")
        return well("Ray", f"{address} answers" + (f", {nodes} nodes" if nodes else ""))
    return error("Ray", f"{address} does not answer, or does not let us in", advice)


def check_storage(machine: Machine) -> Iterable[Finding]:
    """DVC's default remote, and every bucket that it or the settings name."""
    remote = dvc_remote(machine.project)
    yield from _judge_remote(remote, machine)
    settings = machine.settings
    named = (remote, settings.data.shards, settings.compute.storage)
    addresses = [address for address in named if address is not None and address.startswith("s3://")]
    for bucket in dict.fromkeys(urlsplit(address).netloc for address in addresses):
        yield _judge_bucket(bucket, machine)
    if not addresses and (endpoint := machine.environment.get("AWS_ENDPOINT_URL")):
        reply = machine.get(endpoint, {})
        if reply.status is None:
            yield error("S3", f"{without_password(endpoint)}: {reply.text}", "check AWS_ENDPOINT_URL, and that the store is up")
        else:
            yield well("S3", f"{without_password(endpoint)} answers; no bucket is named yet")


def dvc_remote(project: Path) -> str | None:
    """Address of the project's default DVC remote, by .dvc/config and .dvc/config.local; None where there is none."""
    parser = configparser.ConfigParser(interpolation=None)
    parser.read([project / ".dvc/config", project / ".dvc/config.local"], encoding="utf-8")
    name = parser.get("core", "remote", fallback=None)
    return None if name is None else parser.get(f"'remote \"{name}\"'", "url", fallback=None)


def _judge_remote(remote: str | None, machine: Machine) -> Iterable[Finding]:
    pins = sorted((machine.project / "data").glob("*.dvc"))
    if remote is None and pins:
        found = f"none, and {len(pins)} datasets are pinned"
        yield warning("DVC remote", found, "dvc remote add --default NAME ADDRESS, then dvc push: or the data are here only")
    elif remote is None:
        yield well("DVC remote", "none; results stay on this machine")
    elif "://" in remote:
        yield well("DVC remote", without_password(remote))
    else:
        folder = Path(os.path.normpath(machine.project / ".dvc" / remote))
        if folder.is_dir() and os.access(folder, os.R_OK | os.W_OK):
            yield well("DVC remote", str(folder))
        else:
            yield error("DVC remote", f"{folder} is not a folder that we can write", "make or mount it, or correct dvc remote")


def _judge_bucket(bucket: str, machine: Machine) -> Finding:
    from gkd_core.storage.client import Patience, connect
    from gkd_core.storage.errors import explained

    subject = f"S3, bucket {bucket}"
    try:
        client = connect(Patience(connect_seconds=5, read_seconds=5, attempts=2))
        with explained(f"s3://{bucket}", "listing"):
            client.list_objects_v2(Bucket=bucket, MaxKeys=1)
    except GkdError as failure:
        found, _, advice = str(failure).removeprefix(f"s3://{bucket}: ").partition("; ")
        return error(subject, found, advice or "see docs/s3.md for the variables")
    return well(subject, f"lets us in, at {client.meta.endpoint_url}")
