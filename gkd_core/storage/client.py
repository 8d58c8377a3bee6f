"""The client: all of its facts come from the environment, and every wait of its has an end."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError

from gkd_core.storage.errors import explain

CONNECTIONS = 16


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


def connect(patience: Patience = PATIENCE) -> Any:
    """A client for the endpoint, region, credentials and certificates that the usual AWS variables and files name.

    Raises:
        PlatformError: a variable or file of these is malformed.
    """
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
        return boto3.session.Session().client("s3", config=config)
    except (BotoCoreError, ValueError) as error:
        raise explain(error, "S3", "no client for the endpoint can be made") from None
