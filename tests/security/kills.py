"""Kill a piece of work by SIGKILL at each of its steps: before it opens, renames, removes, locks or connects to something."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

STEPS = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "shutil.copyfile", "sqlite3.connect", "fcntl.flock", "os.truncate"}
WRITING = os.O_WRONLY | os.O_RDWR


def killed_before_step(number: int, work: Callable[[], object]) -> bool:
    """Run work in a child that is killed before its step of this number, from 1; False where it ended before that.

    Raises:
        AssertionError: the work itself failed.
    """
    child = os.fork()
    if child == 0:
        status = 1
        try:
            _strike_down_at(number)
            work()
            status = 0
        except BaseException as error:
            os.write(2, f"{type(error).__name__}: {error}\n".encode())
        finally:
            os._exit(status)
    _, ended = os.waitpid(child, 0)
    if os.WIFSIGNALED(ended):
        assert os.WTERMSIG(ended) == signal.SIGKILL
        return True
    assert os.WEXITSTATUS(ended) == 0, "the work failed by itself: see its message above"
    return False


def steps_of(work: Callable[[], object], folder: Path) -> int:
    """How many steps work has, done once in a child."""
    counted = folder / "steps"

    def count() -> None:
        seen = [0]

        def hook(event: str, arguments: tuple[Any, ...]) -> None:
            seen[0] += _is_step(event, arguments)

        sys.addaudithook(hook)
        work()
        total = seen[0]
        counted.write_text(str(total))

    assert not killed_before_step(0, count)
    total = int(counted.read_text())
    counted.unlink()
    return total


def _strike_down_at(number: int) -> None:
    seen = [0]

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if _is_step(event, arguments):
            seen[0] += 1
            if seen[0] == number:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


def _is_step(event: str, arguments: tuple[Any, ...]) -> bool:
    if event != "open":
        return event in STEPS
    _, _, flags = arguments
    return isinstance(flags, int) and bool(flags & WRITING)
