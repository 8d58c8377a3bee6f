"""Processes by a mark in their environment, which all that they start inherits: so none of ours is missed, wherever it went.

A guard (gkd_core.adapters.child) ends the session of its command. Prefect's worker puts each flow run into a session of its
own, out of the guard's reach; the mark reaches it.
"""

import os
import signal
import time
from contextlib import suppress
from pathlib import Path

import psutil

from gkd_core.paths import ARTIFACTS
from gkd_core.platform_state import ProcessMark

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
    return [process for process in psutil.process_iter() if process.pid != os.getpid() and _bears(process, prefix)]


def _bears(process: psutil.Process, prefix: str) -> bool:
    try:
        return process.environ().get(VARIABLE, "").startswith(prefix) and process.status() != psutil.STATUS_ZOMBIE
    except (psutil.Error, OSError):
        return False  # ended meanwhile, or another user's


def of_project(project: Path) -> set[str]:
    """Marks of the platforms whose services or flow runs work in a project, by their processes alone.

    In its folder or in that of its results, where services and stages work: a project that lies within this one is another.
    """
    found = set()
    for process in psutil.process_iter():
        try:
            mark = process.environ().get(VARIABLE)
            if mark and _works_in(Path(process.cwd()), project):
                found.add(mark.partition(":")[0])
        except (psutil.Error, OSError):
            continue  # ended meanwhile, or another user's
    return found


def _works_in(folder: Path, project: Path) -> bool:
    return folder == project or folder.is_relative_to(project / ARTIFACTS)


def supervisors_of(project: Path) -> list[psutil.Process]:
    """Supervisors that work in a project's folder, whatever their version."""
    found = []
    for process in psutil.process_iter():
        try:
            if SUPERVISOR in process.cmdline() and Path(process.cwd()) == project and process.pid != os.getpid():
                found.append(process)
        except (psutil.Error, OSError):
            continue
    return found


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
