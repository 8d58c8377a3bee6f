"""A bucket on loopback for benchmarks: a moto server in a process of its own, with prepared shards in it."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gkd_core.errors import PlatformError
from gkd_core.operations.bootstrap.buckets import bootstrap_bucket
from gkd_core.storage.client import connect
from gkd_core.storage.keys import Location
from gkd_core.storage.trees import upload_tree
from gkd_core.system.child_process import child_process

PLACE = Location("benchmark", "shards")
START_SECONDS = 60.0


@contextmanager
def loopback_bucket(shards: Path, log: Path) -> Iterator[Location]:
    """Serve a folder of prepared shards by S3 while the block lasts; the AWS variables of this process point there."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    os.environ |= {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": "benchmark",
        "AWS_SECRET_ACCESS_KEY": "benchmark",
        "AWS_REGION": "us-east-1",
    }
    with child_process(["moto_server", "-H", "127.0.0.1", "-p", str(port)], log=log):
        _wait(port)
        client = connect()
        bootstrap_bucket(client, PLACE.bucket)
        upload_tree(client, shards, PLACE)
        yield PLACE


def _wait(port: int) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            if time.monotonic() > deadline:
                raise PlatformError(f"the S3 server on port {port} did not start within {START_SECONDS:.0f} s") from None
            time.sleep(0.1)
