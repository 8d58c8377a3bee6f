"""DVC in a process of its own: parent and child speak in lines over a socket, and the child never fails without a word.

DVC works in the current folder, swallows Ctrl-C and leaves behind what it started; so its programs (`stage_process`,
`fetch_process`, `digest_process`) are processes, which end with us. Each has a function `main(parent, *arguments)`. What it
raises, or what kept it from being imported, is a line too:

    crashed MESSAGE
"""

from __future__ import annotations

import importlib
import signal
import socket
import sys
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from subprocess import Popen
from typing import TextIO

from gkd_core.errors import PlatformError, TransientError
from gkd_core.messages import one_line
from gkd_core.system.child_process import child_process, was_killed

CRASHED = "crashed "
LONGEST_WORD = 500
QUIET = {"DVC_NO_ANALYTICS": "1", "DO_NOT_TRACK": "1"}


class DvcProcess:
    """The parent's end of the talk."""

    def __init__(self, task: str, child: Popen[bytes], stream: TextIO) -> None:
        self._task, self._child, self._stream = task, child, stream

    def say(self, line: str) -> None:
        """Tell the child a line."""
        print(line, file=self._stream, flush=True)

    def hear(self) -> str:
        """The child's next line.

        Raises:
            PlatformError: it has failed; the message is its own, or says that it had none.
            TransientError: a signal ended it.
        """
        line = self._stream.readline()
        if line.startswith(CRASHED):
            raise PlatformError(f"{self._task}: DVC failed: {line.removeprefix(CRASHED).strip()}")
        if line.endswith("\n"):
            return line.rstrip("\n")
        status = self._child.wait()
        if was_killed(status):
            raise TransientError(f"{self._task}: DVC was ended by {_signal(status)}; out of memory, or told to end")
        raise PlatformError(f"{self._task}: DVC ended with exit status {status} and said nothing; see the log of this process")


@contextmanager
def dvc_process(
    task: str,
    program: str,
    arguments: Sequence[str],
    folder: Path,
    env: Mapping[str, str] | None = None,
    held: Sequence[int] = (),
) -> Iterator[DvcProcess]:
    """One of DVC's programs, in a folder, while the block lasts.

    Args:
        task: what it is for, as messages begin with it.
        program: a module beside this one.
        env: further environment variables.
        held: open files with locks, which last as long as the program and all that it starts.
    """
    ours, theirs = socket.socketpair()
    command = [sys.executable, "-m", __name__, program, str(theirs.fileno()), *arguments]
    with (
        ours,
        child_process(command, cwd=folder, env={**(env or {}), **QUIET}, pass_fds=[theirs.fileno(), *held]) as child,
        ours.makefile("rw", encoding="utf-8") as stream,
    ):
        theirs.close()
        yield DvcProcess(task, child, stream)


def _signal(status: int) -> str:
    number = -status if status < 0 else status - 128
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def run_program(program: str, parent: TextIO, arguments: Sequence[str]) -> int:
    """Run a program's `main`; where it raises, that is the last line told. Gives the exit status."""
    try:
        importlib.import_module(f"gkd_core.versioning.{program}").main(parent, *arguments)
    except SystemExit as end:
        if isinstance(end.code, str):
            return _crashed(end.code, parent)
        raise
    except OSError as error:  # of the disk or the machine: its words are enough
        return _crashed(error, parent)
    except Exception as error:
        traceback.print_exc()
        return _crashed(f"{type(error).__name__}: {error}", parent)
    return 0


def _crashed(error: object, parent: TextIO) -> int:
    print(f"{CRASHED}{one_line(error, LONGEST_WORD)}", file=parent, flush=True)
    return 1


if __name__ == "__main__":
    with socket.socket(fileno=int(sys.argv[2])) as connection, connection.makefile("rw", encoding="utf-8") as stream:
        sys.exit(run_program(sys.argv[1], stream, sys.argv[3:]))
