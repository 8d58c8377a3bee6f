"""Step metrics as lines of JSON in the run folder: written by the process that trains, followed by whoever shows or tracks it."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

FILE = "metrics.jsonl"
POLL_SECONDS = 0.5
MetricsSink = Callable[[int, Mapping[str, float]], None]
Line = dict[str, float]


def file_sink(folder: Path) -> MetricsSink:
    """A sink that appends `{"step", "time", ...}` lines to `metrics.jsonl` in the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / FILE

    def write(step: int, values: Mapping[str, float]) -> None:
        line = json.dumps({"step": step, "time": round(time.time(), 3), **values}).encode()
        with path.open("ab+") as stream:
            # A process that was killed while it wrote left half a line; the next one must not be glued to it.
            if stream.tell():
                stream.seek(-1, os.SEEK_END)
                line = line if stream.read(1) == b"\n" else b"\n" + line
            stream.write(line + b"\n")

    return write


class MetricsFollower:
    """Reads the lines added to a folder's `metrics.jsonl` since the last read.

    A half-written last line waits for its end; one that a killed process never ended is left out.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / FILE
        self._offset = 0

    def read(self) -> list[Line]:
        """New whole lines, oldest first."""
        if not self._path.exists():
            return []
        with self._path.open("rb") as stream:
            stream.seek(self._offset)
            whole, newline, _ = stream.read().rpartition(b"\n")
        self._offset += len(whole) + len(newline)
        return [line for line in map(_parse, whole.splitlines()) if line is not None]


def _parse(text: bytes) -> Line | None:
    try:
        line: Line = json.loads(text)
    except ValueError:
        return None
    return line


@contextmanager
def following(folder: Path, on_lines: Callable[[list[Line]], None]) -> Iterator[None]:
    """Hand new lines to `on_lines` from a thread while the block runs, and the last of them when it ends."""
    follower = MetricsFollower(folder)
    ended = threading.Event()

    def follow() -> None:
        while True:
            last = ended.wait(POLL_SECONDS)
            lines = follower.read()
            if lines:
                on_lines(lines)
            if last:
                return

    thread = threading.Thread(target=follow, name=f"follow {folder.name}", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
