"""What the layers of an image hold, files that a later layer removed included."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

BLOCK = 1 << 20


def holds(stream: IO[bytes], mark: bytes) -> bool:
    """Whether a byte string is in what is left of a stream."""
    before = b""
    while block := stream.read(BLOCK):
        if mark in before + block:
            return True
        before = block[-len(mark) :]
    return False


def entries(saved: Path, mark: str) -> Iterator[tuple[str, bool]]:
    """Every path of every layer in an archive of `docker save`, with whether its content has the mark.

    The paths of the image's own records, its history among them, start with a colon.
    """
    with tarfile.open(saved) as archive:
        for blob in archive:
            content = archive.extractfile(blob)
            if content is None:
                continue
            try:
                layer = tarfile.open(fileobj=content)  # noqa: SIM115
            except tarfile.ReadError:
                content.seek(0)
                yield f":{blob.name}", holds(content, mark.encode())
                continue
            for member in layer:
                inner = layer.extractfile(member) if member.isfile() else None
                yield member.name, inner is not None and holds(inner, mark.encode())
