"""Objects to files, whole or not at all: a broken reply is gone on with where it broke, and the end is held against a SHA-256."""

from __future__ import annotations

import base64
import hashlib
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from botocore.exceptions import ClientError

from gkd_core.errors import DataError, GkdError, TransientError
from gkd_core.files import atomic_file
from gkd_core.storage.client import PATIENCE, Patience
from gkd_core.storage.errors import FAILURES, code_of, explain
from gkd_core.storage.keys import Location

CHUNK_BYTES = 256 * 1024
SHA256 = "sha256"  # our metadata of an object, hexadecimal
LONGEST_PAUSE = 5.0

Received = Callable[[int], None]


@dataclass(frozen=True)
class Receipt:
    """What arrived: its size in bytes, its SHA-256, and whether there was one to hold it against."""

    size: int
    sha256: str
    verified: bool


@dataclass(frozen=True)
class Expected:
    """What an index says of an object. Without it, the store's own checksum is asked for, and our metadata."""

    size: int
    sha256: str


def download_file(
    client: Any,
    place: Location,
    path: Path,
    expected: Expected | None = None,
    patience: Patience = PATIENCE,
    received: Received = lambda size: None,
) -> Receipt:
    """Fetch an object into a file, which appears under its name only when it is whole.

    Args:
        received: called with the bytes of each part that arrived; with a negative number where they had to be thrown away.

    Raises:
        DataError: there is no such object, or its content is not what is expected, however often it is fetched.
        PlatformError: the store refuses, or fails in a row or for so long that `patience` is at its end.
    """
    with atomic_file(path) as temporary, temporary.open("r+b") as stream:
        return fetch(client, place, stream, expected, patience, received)


def fetch(
    client: Any,
    place: Location,
    stream: BinaryIO,
    expected: Expected | None = None,
    patience: Patience = PATIENCE,
    received: Received = lambda size: None,
) -> Receipt:
    """As `download_file`, into an open file, which the object's content replaces; after an error what it holds is of no use."""
    download = _Download(client, place, stream, expected, patience, received)
    failures = restarts = 0
    while True:
        before = download.size
        try:
            return download.attempt()
        except _Broken as broken:
            # What was gained is kept; a start anew is a loss, however much came.
            failures = 1 if download.size > before else failures + 1
            restarts += download.size < before
            if max(failures, restarts) >= patience.attempts:
                raise broken.error from None
            pause = random.uniform(0.5, 1.0) * min(0.2 * 2**failures, LONGEST_PAUSE)
            if time.monotonic() + pause > download.deadline:
                raise download.late() from None
            time.sleep(pause)


class _Broken(Exception):
    """An attempt failed in a way that the next may not."""

    def __init__(self, error: GkdError) -> None:
        super().__init__(str(error))
        self.error = error


class _Download:
    """One object on its way: how much of it has arrived, and of which version."""

    def __init__(
        self, client: Any, place: Location, stream: BinaryIO, expected: Expected | None, patience: Patience, received: Received
    ) -> None:
        self._client, self._place, self._stream = client, place, stream
        self._expected, self._patience, self._received = expected, patience, received
        self._etag: str | None = None
        self._length: int | None = None if expected is None else expected.size
        self._digest = hashlib.sha256()
        self._stated: str | None = None if expected is None else expected.sha256
        self.size = 0
        self.deadline = patience.deadline(self._length or 0)

    def attempt(self) -> Receipt:
        """Ask for what is missing, and take what comes."""
        if self.size == 0:
            self._stream.seek(0)
        if self._length is None or self.size < self._length or self._length == 0:
            reply = self._ask()
            self._check_reply(reply)
            self._take(reply["Body"])
        if self.size != self._length:
            raise self._broken(f"the reply ended after {self.size} of {self._length} bytes")
        return self._finish()

    def late(self) -> TransientError:
        """The error of a transfer that took too long."""
        of = "" if self._length is None else f" of {self._length}"
        return TransientError(
            f"{self._place}: too slow: {self.size}{of} bytes came in the time allowed "
            f"({self._patience.base_seconds:.0f} s and 1 s for each {self._patience.bytes_per_second / 1024:.0f} KiB); "
            "check the network and the store, then run the same again"
        )

    def _ask(self) -> Mapping[str, Any]:
        request: dict[str, Any] = {"Bucket": self._place.bucket, "Key": self._place.key, "ChecksumMode": "ENABLED"}
        if self.size:
            request |= {"Range": f"bytes={self.size}-"} | ({"IfMatch": self._etag} if self._etag else {})
        try:
            reply: Mapping[str, Any] = self._client.get_object(**request)
        except FAILURES as error:
            ours = explain(error, self._place, "download")
            if isinstance(error, ClientError) and code_of(error) in ("PreconditionFailed", "InvalidRange"):
                self._start_anew()
                raise _Broken(ours) from None
            # botocore has tried a passing failure often enough.
            raise ours from None
        return reply

    def _check_reply(self, reply: Mapping[str, Any]) -> None:
        """Hold the reply's head against what is known of the object."""
        whole, offset = _extent(reply)
        if self._length is not None and whole != self._length:
            self._start_anew()
            source = "its index says" if self._expected else "it had at first"
            raise self._broken(f"the store has {whole} bytes of it, {source} {self._length}; if it stays so, upload it again")
        if offset != self.size:
            self._start_anew()
            raise self._broken("the store sent another part than was asked for")
        if self._length is None:
            self._length = whole
            self.deadline += whole / self._patience.bytes_per_second
        self._etag = reply.get("ETag")
        self._stated = self._stated or _stated_digest(reply)

    def _take(self, body: Any) -> None:
        missing = (self._length or 0) - self.size
        try:
            with body as raw:
                # One reception at a time: a full read would wait as long as a slow sender likes.
                while chunk := raw.read1(CHUNK_BYTES):
                    missing -= len(chunk)
                    if missing < 0:
                        self._start_anew()
                        raise self._broken("more bytes came than the store has said")
                    _write(self._stream, chunk)
                    self._digest.update(chunk)
                    self.size += len(chunk)
                    self._received(len(chunk))
                    if missing and time.monotonic() > self.deadline:
                        raise self.late()
        except FAILURES as error:
            raise _Broken(explain(error, self._place, f"download broke after {self.size} of {self._length} bytes")) from None

    def _finish(self) -> Receipt:
        self._stream.truncate(self.size)
        self._stream.flush()
        digest = self._digest.hexdigest()
        if self._stated is not None and digest != self._stated:
            source = "its index" if self._expected else "the store"
            stated, size = self._stated, self.size
            self._start_anew()
            raise self._broken(
                f"{size} bytes with SHA-256 {digest[:12]}… came, {source} says {stated[:12]}…; "
                "the object or the line is damaged: upload it again"
            )
        return Receipt(self.size, digest, verified=self._stated is not None)

    def _start_anew(self) -> None:
        self._received(-self.size)
        self.size, self._etag, self._digest = 0, None, hashlib.sha256()
        if self._expected is None:
            self._length = self._stated = None

    def _broken(self, what: str) -> _Broken:
        return _Broken(DataError(f"{self._place}: {what}"))


def _write(stream: BinaryIO, content: bytes) -> None:
    """All of it: an unbuffered stream may take less at a time."""
    rest = memoryview(content)
    while rest:
        rest = rest[stream.write(rest) :]


def _extent(reply: Mapping[str, Any]) -> tuple[int, int]:
    """Size of the whole object, and the offset at which the reply begins."""
    stated = str(reply.get("ContentRange", ""))
    try:
        if stated:
            span, _, whole = stated.removeprefix("bytes ").partition("/")
            return int(whole), int(span.partition("-")[0])
        return int(reply["ContentLength"]), 0
    except (KeyError, ValueError):
        return -1, 0


def _stated_digest(reply: Mapping[str, Any]) -> str | None:
    """The SHA-256 that the store keeps of the whole object, or that we left in its metadata when it was uploaded."""
    ours = reply.get("Metadata", {}).get(SHA256)
    if ours:
        return str(ours)
    theirs = str(reply.get("ChecksumSHA256", ""))
    if not theirs or "-" in theirs or reply.get("ChecksumType", "FULL_OBJECT") != "FULL_OBJECT":
        return None  # of the parts of a multipart upload, not of the content
    return base64.b64decode(theirs).hex()
