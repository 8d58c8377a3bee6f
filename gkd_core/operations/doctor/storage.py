"""DVC's remote and the buckets that a run will use: there, and open to us?"""

from __future__ import annotations

import configparser
import os
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import urlsplit

from gkd_core.errors import GkdError
from gkd_core.operations.doctor.finding import Finding, error, warning, well
from gkd_core.operations.doctor.machine import Machine
from gkd_core.operations.doctor.web import without_password
from gkd_core.storage.client import Patience, connect
from gkd_core.storage.errors import explained

BRIEF = Patience(connect_seconds=5, read_seconds=5, attempts=2)


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
    subject = f"S3, bucket {bucket}"
    try:
        client = connect(BRIEF)
        with explained(f"s3://{bucket}", "listing"):
            client.list_objects_v2(Bucket=bucket, MaxKeys=1)
    except GkdError as failure:
        found, _, advice = str(failure).removeprefix(f"s3://{bucket}: ").partition("; ")
        return error(subject, found, advice or "see docs/s3.md for the variables")
    return well(subject, f"lets us in, at {client.meta.endpoint_url}")
