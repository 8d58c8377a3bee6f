"""What judges a reader of foreign bytes: it takes an input, or refuses it by an error of ours. Anything else is a fault.

A fault is: an error of another class, a message that is not fit to be shown, seconds of work or much memory for a few kilobytes,
a file written outside the scratch folder, a process or a connection.
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Literal

from gkd_core.errors import GkdError

SECONDS = 5.0  # of CPU, and four times as many by the clock: the slowest good reader needs a few hundredths
MEMORY = 512 * 2**20  # bytes by which one input may raise what is resident
LONGEST_MESSAGE = 200_000  # characters: settings name every bad key in a line of its own
KIBI = 1024
STATUS, CLEAR_REFS = Path("/proc/self/status"), Path("/proc/self/clear_refs")

Kind = Literal["accepted", "refused", "fault"]
Reader = Callable[[bytes, Path], None]
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
# Events of CPython's audit hooks, with which of their arguments are paths that are written to.
CHANGES = {
    "os.mkdir": (0,), "os.rename": (0, 1), "os.remove": (0,), "os.rmdir": (0,), "os.link": (1,), "os.symlink": (1,),
    "os.truncate": (0,), "os.chmod": (0,), "os.chown": (0,), "os.utime": (0,),
}  # fmt: skip
FORBIDDEN = (
    "subprocess.Popen", "os.system", "os.exec", "os.fork", "os.forkpty", "os.posix_spawn", "os.startfile", "socket.connect",
    "socket.bind", "socket.sendto", "socket.getaddrinfo",
)  # fmt: skip


@dataclass(frozen=True)
class Verdict:
    """What became of one input; `detail` is the error."""

    kind: Kind
    detail: str = ""


@dataclass(frozen=True)
class Target:
    """A reader, and the errors by which it may refuse: given bytes, it gives nothing, or raises one of them.

    Attributes:
        refusals: the errors that the reader's own documentation names.
        form: text that mutations may change as a tree; None for binary files and lines.
    """

    name: str
    reader: Reader
    refusals: tuple[type[Exception], ...] = (GkdError,)
    form: Literal["json", "yaml"] | None = None

    def __call__(self, content: bytes) -> None:
        with tempfile.TemporaryDirectory(prefix="gkd-fuzz-") as folder:
            self.reader(content, Path(folder))


class _TooLong(BaseException):
    """An input took too long. No `Exception`, so that no reader turns it into a refusal."""


class _Watch:
    """What the process does while an input is read. Such hooks cannot be removed, so there is one, switched on and off."""

    def __init__(self) -> None:
        self.folder: Path | None = None
        self.seen: list[str] = []
        self._is_hooked = False

    @contextmanager
    def over(self, folder: Path) -> Iterator[list[str]]:
        """Collect what is written outside a folder, started or connected to while the block runs; it is not let happen."""
        if not self._is_hooked:
            sys.addaudithook(self._look)
            self._is_hooked = True
        self.folder, self.seen = folder.resolve(), []
        try:
            yield self.seen
        finally:
            self.folder = None

    def _look(self, event: str, arguments: tuple[object, ...]) -> None:
        if self.folder is None:
            return
        if event in FORBIDDEN:
            what = event
        elif event == "open" and isinstance(arguments[2], int) and arguments[2] & WRITING and self._is_outside(arguments[0]):
            what = f"open {arguments[0]!r} for writing"
        elif any(self._is_outside(arguments[place]) for place in CHANGES.get(event, ())):
            what = f"{event} {arguments!r}"
        else:
            return
        self.seen.append(what)
        raise PermissionError(f"a reader of foreign bytes: {what}")

    def _is_outside(self, path: object) -> bool:
        if not isinstance(path, str | bytes | os.PathLike) or self.folder is None:
            return False  # a descriptor, which was opened by a path before
        place = os.path.realpath(os.fsdecode(path))
        return place != os.devnull and not Path(place).is_relative_to(self.folder)


_WATCH = _Watch()


def judge(target: Target, content: bytes, seconds: float = SECONDS, memory: int = MEMORY, has_alarm: bool = True) -> Verdict:
    """Have a target read an input.

    Args:
        has_alarm: whether it is stopped by the clock; libFuzzer has an alarm of its own, and bears no other.
    """
    with tempfile.TemporaryDirectory(prefix="gkd-fuzz-") as scratch:
        folder = Path(scratch)
        _forget_peak()
        before, began = _peak(), time.process_time()
        with _WATCH.over(folder) as seen, _alarm(4 * seconds) if has_alarm else nullcontext():
            verdict = _verdict(target, content, folder)
        took, grown = time.process_time() - began, _peak() - before
    if seen:
        return Verdict("fault", f"outside its scratch folder: {seen[0]}")
    if verdict.kind != "fault" and took > seconds:
        return Verdict("fault", f"took {took:.1f} s for {len(content)} bytes")
    if verdict.kind != "fault" and grown > memory:
        return Verdict("fault", f"took {grown // 2**20} MiB more for {len(content)} bytes")
    return verdict


def _verdict(target: Target, content: bytes, folder: Path) -> Verdict:
    try:
        target.reader(content, folder)
    except target.refusals as error:
        objection = _objection_to(str(error))
        return Verdict("fault", f"message {objection}: {str(error)[:200]!r}") if objection else Verdict("refused", str(error))
    except _TooLong:
        return Verdict("fault", "took too long")
    except (Exception, SystemExit) as error:
        frames = traceback.extract_tb(error.__traceback__)
        ours = next((frame for frame in reversed(frames) if "gkd_core" in frame.filename), frames[-1])
        place = f"{Path(ours.filename).name}:{ours.lineno}"
        return Verdict("fault", f"{type(error).__name__} at {place}: {str(error)[:200]!r}")
    return Verdict("accepted")


def _objection_to(message: str) -> str | None:
    """Why a message is not fit to be shown; None where it is."""
    if not message.strip():
        return "is empty"
    if len(message) > LONGEST_MESSAGE:
        return f"has {len(message)} characters"
    if not all(char.isprintable() for char in message.replace("\n", " ")):
        return "has characters that a terminal would obey"
    return None


@contextmanager
def _alarm(seconds: float) -> Iterator[None]:
    def ring(number: int, frame: FrameType | None) -> None:
        raise _TooLong

    began, before = time.monotonic(), signal.signal(signal.SIGALRM, ring)
    left, every = signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        # Whoever had set one before, such as pytest's time-out, gets it back.
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        if left:
            signal.setitimer(signal.ITIMER_REAL, max(left - (time.monotonic() - began), 0.001), every)


def _peak() -> int:
    """The most that was ever resident, or since `_forget_peak`, in bytes."""
    line = next(line for line in STATUS.read_text(encoding="ascii").splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * KIBI


def _forget_peak() -> None:
    # What this process, or the one that it was forked from, has once taken would hide what an input takes.
    CLEAR_REFS.write_text("5", encoding="ascii")
