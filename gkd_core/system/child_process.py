"""Child processes that never outlive us: each runs in a session of its own, which ends with us, however we end.

Between us and the command stands a small guard (this module, run as a program). Its standard input is a pipe that
only we hold open: when that closes, on purpose or because we were killed, the guard stops every process of the session.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil

GRACE_SECONDS = 10.0  # for a checkpoint to be written; who ends us waits for it
KILL = signal.SIGUSR1  # to a guard: no grace any more
KILL_SECONDS = 3.0

_guards: set[subprocess.Popen[bytes]] = set()
_last: set[subprocess.Popen[bytes]] = set()  # those of them that end with their block
_ending = threading.Event()


@contextmanager
def child_process(
    command: Sequence[str],
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    log: Path | None = None,
    pass_fds: Sequence[int] = (),
    last: bool = False,
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a command while the block lasts, then stop it and all that it started.

    Args:
        env: variables put over our own environment.
        log: file for its output; None shares our terminal.
        last: `end_children` leaves it to the end of the block, as others tell it of theirs.

    Yields:
        the guard, whose exit status is the command's (128 + N where signal N ended it).

    Raises:
        KeyboardInterrupt: in the place of an error of the block, once `end_children` was called: it failed by that.
    """
    output = None if log is None else _open_log(log)
    try:
        guard = subprocess.Popen(
            [sys.executable, "-m", __name__, *command],
            cwd=cwd,
            env={**os.environ, **(env or {}), "PATH": _path()},
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=output,
            pass_fds=tuple(pass_fds),
            start_new_session=True,
        )
    finally:
        if output is not None:
            os.close(output)
    _guards.add(guard)
    if last:
        _last.add(guard)
    try:
        if _ending.is_set() and not last:
            _abandon(guard)
        yield guard
    except Exception:
        if _ending.is_set():
            raise KeyboardInterrupt from None
        raise
    finally:
        _abandon(guard)
        guard.wait()
        _guards.discard(guard)
        _last.discard(guard)


def end_children() -> None:
    """Stop all children of this process, and from now on each as soon as it is started; does not wait for their end."""
    _ending.set()
    for guard in list(_guards - _last):
        _abandon(guard)


def kill_children() -> None:
    """Stop all children of this process at once, the last ones too, and wait for their end a little."""
    _ending.set()
    guards = list(_guards)
    for guard in guards:
        guard.send_signal(KILL)
    deadline = time.monotonic() + KILL_SECONDS
    while any(guard.poll() is None for guard in guards) and time.monotonic() < deadline:
        time.sleep(0.05)


def is_ending() -> bool:
    """Whether `end_children` was called: what is waited for need not be begun any more."""
    return _ending.is_set()


def wait_unless_ending(seconds: float) -> bool:
    """Wait for so long; False, at once, where this process is told to end before."""
    return not _ending.wait(seconds)


def _abandon(guard: subprocess.Popen[bytes]) -> None:
    assert guard.stdin is not None
    guard.stdin.close()


def was_killed(status: int) -> bool:
    """Whether a signal ended a command, by its exit status as Python (negative) or a shell (128 + N) gives it."""
    return status < 0 or status > 128


def _path() -> str:
    """PATH with this Python's scripts first, so that `gkd`, `ray` and `dvc` are those of this environment."""
    return os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])


def _open_log(path: Path) -> int:
    path.parent.mkdir(parents=True, exist_ok=True)
    # Appending, so that a log which is emptied while it is written goes on at its beginning.
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o644)


def _guard(command: list[str]) -> int:
    """Run the command in this session; stop the session when it ends or when our standard input closes."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: None)  # our parent decides when this ends, by closing the pipe
    signal.signal(KILL, lambda *_: _stop_session(signal.SIGKILL))
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, close_fds=False, restore_signals=True)
    threading.Thread(target=_stop_when_abandoned, daemon=True).start()
    status = process.wait()
    while _session():
        _stop_session(signal.SIGKILL)
        time.sleep(0.02)
    return status if status >= 0 else 128 - status


def _stop_when_abandoned() -> None:
    while os.read(0, 1024):
        pass
    _stop_session(signal.SIGTERM)
    deadline = time.monotonic() + GRACE_SECONDS
    while _session() and time.monotonic() < deadline:
        time.sleep(0.05)
    _stop_session(signal.SIGKILL)


def _session() -> list[int]:
    """The other live processes of this session. Ray makes process groups of its own, but stays in the session."""
    return [pid for pid in psutil.pids() if pid != os.getpid() and _session_of(pid) == os.getsid(0) and _is_alive(pid)]


def _session_of(pid: int) -> int | None:
    try:
        return os.getsid(pid)
    except (ProcessLookupError, PermissionError):
        return None


def _is_alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _stop_session(number: signal.Signals) -> None:
    for pid in _session():
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            continue


if __name__ == "__main__":
    sys.exit(_guard(sys.argv[1:]))
