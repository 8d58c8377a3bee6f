"""Step metrics as lines of JSON in the run folder: written by the process that trains, followed by whoever shows or tracks it."""

from __future__ import annotations

import json
import logging
import math
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from gkd_core.messages import one_line, shown
from gkd_core.notes import clear_file

FILE = "metrics.jsonl"
POLL_SECONDS = 0.5
LONGEST_PAUSE = 10.0
LAST_TRIES, LAST_SECONDS = 6, 60.0  # how often, and for how long at most, the last lines are handed on again
LOST = "steps of earlier attempts are not known any more"
MetricsSink = Callable[[int, Mapping[str, float]], None]
Line = dict[str, float]
LOG = logging.getLogger(__name__)


def file_sink(folder: Path) -> MetricsSink:
    """A sink that appends `{"step", "time", ...}` lines to `metrics.jsonl` in the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / FILE
    clear_file(path, LOST)

    def write(step: int, values: Mapping[str, float]) -> None:
        line = json.dumps({"step": step, "time": round(time.time(), 3), **values}).encode()
        with path.open("ab+") as stream:
            # A process that was killed while it wrote left half a line; the next one must not be glued to it.
            if stream.tell():
                stream.seek(-1, os.SEEK_END)
                line = line if stream.read(1) == b"\n" else b"\n" + line
            stream.write(line + b"\n")

    return write


@dataclass(frozen=True)
class Found:
    """What a look at the file found: new lines, oldest first, and where the next look begins once they are accepted.

    Attributes:
        malformed: lines left out.
        ends_malformed: whether the last line is one of them.
    """

    lines: list[Line]
    file: tuple[int, int] | None = None
    end: int = 0
    malformed: int = 0
    ends_malformed: bool = False


class MetricsFollower:
    """Reads the lines added to a folder's `metrics.jsonl` since those that were accepted.

    A half-written last line waits for its end; a malformed one, as a killed process leaves it, is named once and left out. Where
    another file has taken the place of the one read so far, it is read from its beginning.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / FILE
        self._file: tuple[int, int] | None = None
        self._offset = 0

    def read(self) -> list[Line]:
        """New whole lines, oldest first; they are taken for accepted."""
        found = self.look()
        self.accept(found)
        return found.lines

    def look(self) -> Found:
        """New whole lines, which the next look finds again unless they are accepted.

        Raises:
            OSError: the file cannot be read.
        """
        try:
            stream = self._path.open("rb")
        except FileNotFoundError:
            return Found([])
        with stream:
            facts = os.fstat(stream.fileno())
            file = (facts.st_dev, facts.st_ino)
            start = self._offset if file == self._file and facts.st_size >= self._offset else 0
            stream.seek(start)
            whole, newline, _ = stream.read().rpartition(b"\n")
        texts = [text for text in whole.splitlines() if text.strip()]
        parsed = [parse_line(text) for text in texts]
        malformed = [text for text, line in zip(texts, parsed, strict=True) if line is None]
        if malformed:
            _name_once(self._path, malformed[0])
        return Found(
            [line for line in parsed if line is not None],
            file,
            start + len(whole) + len(newline),
            len(malformed),
            bool(parsed) and parsed[-1] is None,
        )

    def accept(self, found: Found) -> None:
        """Do not look at these lines again."""
        self._file, self._offset = found.file, found.end


def parse_line(text: bytes | str, needed: tuple[str, ...] = ("step", "time")) -> Line | None:
    """A line of metrics; None where it is not JSON, lacks one of the figures needed, or has something that is no figure."""
    try:
        tree = json.loads(text)
        if not isinstance(tree, dict) or not all(map(_is_figure, tree.values())):
            return None
        line: Line = tree
        # Steps are counted and subtracted as whole numbers: beyond 2**53 a figure is none.
        return line if all(abs(line.get(name, math.nan)) < 2**53 for name in needed) else None
    except (ValueError, OverflowError, RecursionError):
        return None


def _is_figure(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and float(value) is not None


@lru_cache(maxsize=1000)
def _name_once(path: Path, text: bytes) -> None:
    LOG.warning("%s: left out a malformed line, '%s'", shown(str(path)), shown(text.decode("utf-8", "replace"), 60))


class Following:
    """How lines are handed on: again and again until the receiver accepts them, later and later as it fails.

    Attributes:
        lost: lines that were never accepted, once following has ended.
    """

    def __init__(self, folder: Path, on_lines: Callable[[list[Line]], None]) -> None:
        self._folder = folder
        self._follower = MetricsFollower(folder)
        self._on_lines = on_lines
        self._failures = 0
        self._error: Exception | None = None
        self.lost = 0

    @property
    def pause(self) -> float:
        """Seconds until the next turn."""
        return min(LONGEST_PAUSE, POLL_SECONDS * 2.0 ** min(self._failures, 10))

    def turn(self) -> bool:
        """Hand on what is new; whether the receiver has accepted it."""
        try:
            found = self._follower.look()
            if found.lines:
                self._on_lines(found.lines)
        except Exception as error:  # whatever a receiver raises, training goes on, and so does the following
            if self._error is None:
                LOG.warning("%s: metrics could not be handed on (%s); they will be, again", self._folder.name, _brief(error))
            self._failures, self._error = self._failures + 1, error
            return False
        self._follower.accept(found)
        self._failures, self._error = 0, None
        return True

    def finish(self, tries: int) -> None:
        """Hand on the last lines, and tell of those that could not be."""
        self._failures, deadline = 0, time.monotonic() + LAST_SECONDS
        while not self.turn():
            if self._failures >= tries or time.monotonic() + self.pause > deadline:
                return self._give_up()
            time.sleep(self.pause)
        return None

    def _give_up(self) -> None:
        try:
            self.lost = len(self._follower.look().lines)
            what = f"{self.lost} lines of metrics were"
        except OSError:
            self.lost, what = 1, "metrics were"
        LOG.error("%s: %s never handed on: %s", self._folder.name, what, _brief(self._error))


def _brief(error: object) -> str:
    return one_line(f"{type(error).__name__}: {error}")


@contextmanager
def following(folder: Path, on_lines: Callable[[list[Line]], None]) -> Iterator[Following]:
    """Hand new lines to `on_lines` from a thread while the block runs, and the last of them when it ends.

    Lines at which `on_lines` raises are handed on again, with those that have come meanwhile, so it may see some twice. When the
    block has ended that is tried for a while, or once where it ended by an error; what is not accepted then is an error in the
    log, and counted in `lost`.
    """
    handing, ended = Following(folder, on_lines), threading.Event()
    tries = LAST_TRIES

    def follow() -> None:
        while not ended.wait(handing.pause):
            handing.turn()
        handing.finish(tries)

    thread = threading.Thread(target=follow, name=f"follow {folder.name}", daemon=True)
    thread.start()
    try:
        yield handing
    except BaseException:
        tries = 1
        raise
    finally:
        ended.set()
        thread.join()
