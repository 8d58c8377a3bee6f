"""The client: all of its facts come from the environment, and every wait of its has an end."""

from __future__ import annotations

import os
import re
import time
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError

from gkd_core.errors import PlatformError
from gkd_core.messages import given_value
from gkd_core.storage.errors import explain

CONNECTIONS = 16
ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
BUCKET_HOST = re.compile(r"[^.]+\.s3[.-](?:[a-z0-9-]+\.)?amazonaws\.com")


@dataclass(frozen=True)
class Patience:
    """How long an endpoint is waited for.

    Attributes:
        connect_seconds, read_seconds: of one connection, and of silence while it is open.
        attempts: of one request (botocore's standard retries, with growing pauses), and of a transfer, in a row without a
            byte gained.
        base_seconds, bytes_per_second: a transfer ends in an error after the first, and the time that its bytes take at the
            second.
    """

    connect_seconds: float = 10.0
    read_seconds: float = 20.0
    attempts: int = 10  # where every third request fails, one in 59 000 fails so often in a row
    base_seconds: float = 120.0
    bytes_per_second: float = 64 * 1024.0

    def deadline(self, size: int) -> float:
        """When (by `time.monotonic`) a transfer of so many bytes, begun now, is given up."""
        return time.monotonic() + self.base_seconds + size / self.bytes_per_second


PATIENCE = Patience()


def _check_endpoint(name: str, address: str) -> None:
    """Refuse what no endpoint is: botocore would end in a traceback, or look for a bucket below another bucket.

    Args:
        name: where the address comes from.

    Raises:
        PlatformError: naming it.
    """
    parts = urlsplit(address)
    said = f"{name}: given {given_value(address)}"
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise PlatformError(f"{said}: expected http:// or https://, then host and port, such as http://minio:9000")
    if parts.username or parts.password:  # S3 takes none there, and botocore would not find the host in NO_PROXY
        raise PlatformError(f"{said}: an endpoint holds no user and password; set AWS_ACCESS_KEY_ID and its secret")
    if BUCKET_HOST.fullmatch(parts.hostname) or (len(parts.path.strip("/").split("/")) == 1 and parts.path.strip("/")):
        raise PlatformError(f"{said}: it names a bucket; give the store's address alone, and the bucket as s3://bucket/prefix")
    if parts.query or parts.fragment:
        raise PlatformError(f"{said}: an endpoint ends with its host and port; leave out what follows")


def connect(patience: Patience = PATIENCE) -> Any:
    """A client for the endpoint, region, credentials and certificates that the usual AWS variables and files name.

    Raises:
        PlatformError: a variable or file of these is malformed.
    """
    for name in ENDPOINTS:
        if address := os.environ.get(name):
            _check_endpoint(name, address)
    config = Config(
        connect_timeout=patience.connect_seconds,
        read_timeout=patience.read_seconds,
        retries={"mode": "standard", "total_max_attempts": patience.attempts},
        max_pool_connections=CONNECTIONS,
        # We check SHA-256 ourselves; the CRCs that botocore would add unasked are refused by many compatible stores.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
    )
    try:
        client = boto3.session.Session().client("s3", config=config)
    except (BotoCoreError, ValueError) as error:
        raise explain(error, "S3", "no client for the endpoint can be made") from None
    _check_endpoint("endpoint_url in the AWS configuration file", client.meta.endpoint_url)
    return client
