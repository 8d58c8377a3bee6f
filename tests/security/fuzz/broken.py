"""Readers with a fault each, by which the tests see that faults are seen."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from gkd_core.errors import DataError
from tests.security.fuzz.harness import Target

OUTSIDE = Path(tempfile.gettempdir()) / "gkd-fuzz-outside"


def wrong_class(content: bytes, folder: Path) -> None:
    raise KeyError("x")


def not_its_own(content: bytes, folder: Path) -> None:
    raise ValueError("of a reader that may refuse by DataError alone")


def obeyed(content: bytes, folder: Path) -> None:
    raise DataError("file: \x1b[2J")


def silent(content: bytes, folder: Path) -> None:
    raise DataError("")


def slow(content: bytes, folder: Path) -> None:
    try:
        time.sleep(20)
    except Exception as error:
        raise DataError("what takes too long is no refusal") from error


def large(content: bytes, folder: Path) -> None:
    np.ones(100 * 2**20, dtype=np.uint8)


def outside(content: bytes, folder: Path) -> None:
    try:
        OUTSIDE.write_bytes(content)
    except OSError as error:
        raise DataError("refused, and yet it was tried") from error


def above(content: bytes, folder: Path) -> None:
    (folder / ".." / OUTSIDE.name).mkdir()


def process(content: bytes, folder: Path) -> None:
    subprocess.run([sys.executable, "-c", ""], check=True)


def exits(content: bytes, folder: Path) -> None:
    sys.exit(0)


def aborts(content: bytes, folder: Path) -> None:
    if len(content) < 2:
        os.abort()


def sound(content: bytes, folder: Path) -> None:
    (folder / "x").write_bytes(content)
    if content:
        raise DataError("x: refused")


JUDGED = tuple(
    Target(reader.__name__, reader, (DataError,))
    for reader in (wrong_class, not_its_own, obeyed, silent, slow, large, outside, above, process, exits)
)
TARGETS = {target.name: target for target in (JUDGED[0], Target("aborts", aborts), Target("sound", sound, (DataError,)))}
