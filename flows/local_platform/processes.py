"""Processes by a mark in their environment, which all that they start inherits: so none of ours is missed, wherever it went.

A guard (gkd_core.system.child_process) ends the session of its command. Prefect's worker puts each flow run into a session of its
own, out of the guard's reach; the mark reaches it.
"""

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import psutil

from gkd_core.paths import ARTIFACTS
from gkd_core.system.platform_state import ProcessMark

Answer = TypeVar("Answer")
VARIABLE = "GKD_PLATFORM"
SUPERVISOR = "flows.local_platform.supervisor"
GRACE_SECONDS = 20.0


def mark_of(pid: int) -> ProcessMark:
    """A process that lives.

    Raises:
        psutil.NoSuchProcess: there is none of that number.
    """
    return ProcessMark(pid=pid, began=psutil.Process(pid).create_time())


def marked(prefix: str) -> list[psutil.Process]:
    """Live processes, other than this one, whose mark begins so."""
    return [process for process, mark in _others(_mark) if mark.startswith(prefix) and _lives(process)]


def _others(ask: Callable[[psutil.Process], Answer]) -> Iterator[tuple[psutil.Process, Answer]]:
    """Every other process with its answer; without those that ended meanwhile, or are another user's and give none."""
    for process in psutil.process_iter():
        if process.pid == os.getpid():
            continue
        try:
            answer = ask(process)
        except (psutil.Error, OSError):
            continue
        yield process, answer


def _mark(process: psutil.Process) -> str:
    return str(process.environ().get(VARIABLE, ""))


def _lives(process: psutil.Process) -> bool:
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False


def of_project(project: Path) -> set[str]:
    """Marks of the platforms whose services or flow runs work in a project, by their processes alone.

    In its folder or in that of its results, where services and stages work: a project that lies within this one is another.
    """
    marks = _others(lambda process: _mark(process) if _works_in(Path(process.cwd()), project) else "")
    return {mark.partition(":")[0] for _, mark in marks if mark}


def _works_in(folder: Path, project: Path) -> bool:
    return folder == project or folder.is_relative_to(project / ARTIFACTS)


def supervisors_of(project: Path) -> list[psutil.Process]:
    """Supervisors that work in a project's folder, whatever their version."""
    found = _others(lambda process: SUPERVISOR in process.cmdline() and Path(process.cwd()) == project)
    return [process for process, supervises in found if supervises]


def stop_marked(prefix: str, grace: float = GRACE_SECONDS) -> int:
    """Stop every process whose mark begins so: by SIGTERM, and after the grace by SIGKILL.

    Returns:
        how many there were.
    """
    found = marked(prefix)
    _signal(found, signal.SIGTERM)
    deadline = time.monotonic() + grace
    while marked(prefix) and time.monotonic() < deadline:
        time.sleep(0.1)
    # One that is killed may have just started another. A process that the kernel holds fast is not waited for.
    deadline = time.monotonic() + grace
    while (left := marked(prefix)) and time.monotonic() < deadline:
        _signal(left, signal.SIGKILL)
        time.sleep(0.05)
    return len(found)


def _signal(processes: list[psutil.Process], number: signal.Signals) -> None:
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.send_signal(number)
