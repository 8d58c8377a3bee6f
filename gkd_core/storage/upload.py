"""Files to objects. The store checks the SHA-256 of each part as it comes; that of the whole goes along as metadata."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from boto3.s3.transfer import TransferConfig
from botocore.exceptions import ClientError

from gkd_core.errors import DataError, PlatformError, TransientError
from gkd_core.records import sha256_of
from gkd_core.storage.client import PATIENCE, Patience
from gkd_core.storage.download import SHA256
from gkd_core.storage.errors import code_of, explain, explained
from gkd_core.storage.keys import Location

PART_BYTES = 16 * 1024**2
PARTS = TransferConfig(multipart_threshold=PART_BYTES, multipart_chunksize=PART_BYTES, max_concurrency=4)

Sent = Callable[[int], None]


def write_once(client: Any) -> Any:
    """The client, each of whose uploads the store refuses where the key has an object: `If-None-Match: *`.

    By the client's events, as boto3's transfers take no such argument; of an upload in parts its last request has it.
    """

    def ask(params: dict[str, Any], **kwargs: object) -> dict[str, Any]:
        return {**params, "IfNoneMatch": "*"}

    for operation in ("PutObject", "CompleteMultipartUpload"):
        client.meta.events.register(f"provide-client-params.s3.{operation}", ask)
    return client


def upload_file(client: Any, path: Path, place: Location, patience: Patience = PATIENCE, sent: Sent = lambda size: None) -> bool:
    """Send a file, unless the object is there already with this content. Large files go in parts, which are removed on failure.

    Args:
        sent: called with the bytes of each piece that went out.

    Returns:
        whether it had to be sent.

    Raises:
        DataError: the path is no regular file, or it changed while it was sent; or the client may `write_once` and another
            object has the key.
        PlatformError: the store refuses, fails in a row, or takes longer than `patience` allows; or what it has afterwards
            is not the file.
    """
    before = _regular(path)
    digest = sha256_of(path)
    if _is_there(client, place, before.st_size, digest):
        sent(before.st_size)
        return False
    deadline, taken = patience.deadline(before.st_size), False
    extra = {"ChecksumAlgorithm": "SHA256", "Metadata": {SHA256: digest}}

    def count(size: int) -> None:
        if time.monotonic() > deadline:
            raise TimeoutError
        sent(size)

    try:
        with explained(place, "upload"), path.open("rb") as stream:
            try:
                client.upload_fileobj(stream, place.bucket, place.key, ExtraArgs=extra, Config=PARTS, Callback=count)
            except ClientError as error:
                # Of a request that was sent again, as its first answer was lost, the object is our own: it is held against the
                # file below.
                if code_of(error) != "PreconditionFailed":
                    raise
                taken = True
    except (PlatformError, TimeoutError):
        # botocore takes what `count` raises for a broken connection.
        if time.monotonic() > deadline:
            raise TransientError(
                f"{place}: upload too slow: {before.st_size} bytes took longer than is allowed; check the network and the store, "
                "then run the same again"
            ) from None
        raise
    after = path.stat()
    if (after.st_size, after.st_mtime_ns) != (before.st_size, before.st_mtime_ns):
        raise DataError(f"{path}: it changed while it was uploaded; leave it alone and upload it again")
    if not _is_there(client, place, before.st_size, digest):
        if taken:
            raise DataError(f"{place}: another object has this key, which is written once; write below a prefix of its own")
        raise TransientError(f"{place}: the store has not kept what was uploaded; upload it again")
    return True


def _regular(path: Path) -> os.stat_result:
    """Facts of a regular file. A link is refused: it could lead to a file that nobody meant to publish."""
    facts = path.lstat()
    if not stat.S_ISREG(facts.st_mode):
        raise DataError(f"{path}: no regular file; links and devices are not uploaded, put the file itself there")
    return facts


def _is_there(client: Any, place: Location, size: int, digest: str) -> bool:
    try:
        facts = client.head_object(Bucket=place.bucket, Key=place.key)
    except ClientError as error:
        if code_of(error) == "NoSuchKey":
            return False
        raise explain(error, place, "upload") from None
    return bool(facts["ContentLength"] == size and facts.get("Metadata", {}).get(SHA256) == digest)
