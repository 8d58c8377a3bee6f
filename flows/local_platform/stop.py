"""Stopping the platform: all of it, in bounded time."""

import os
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import psutil

from flows.local_platform import processes
from flows.local_platform.services import PROFILE
from gkd_core.errors import PlatformError
from gkd_core.system.platform_state import STATE_FILE, PlatformState, ServiceState, read_state
from gkd_core.system.process_marks import is_running

# A service has 20 s to end by itself, flow runs 20 s more; the worker first, then the servers, side by side.
STOP_SECONDS = 100.0


class Stopped(NamedTuple):
    """What was stopped."""

    services: tuple[ServiceState, ...]
    flow_runs: int


def stop_platform(project: Path) -> Stopped | None:
    """Stop the supervisor, its services and every flow run, whatever state they are in.

    Returns:
        what ran; None where nothing did.

    Raises:
        PlatformError: a process could not be ended.
    """
    state = read_state(project)
    if state is None:
        return _stop_unknown(project)
    found = processes.marked(state.mark)
    supervised = is_running(state.supervisor)
    if not supervised and not found:
        _forget(project, [])
        return None
    known = {service.pid for service in state.services}
    flow_runs = [process for process in found if process.pid not in known and _is_flow_run(process)]
    if supervised:
        _stop_supervisor(state)
    processes.stop_marked(state.mark)
    _forget(project, processes.marked(state.mark))
    return Stopped(tuple(service for service in state.services if service.pid is not None), len(flow_runs))


def _stop_unknown(project: Path) -> Stopped | None:
    """Stop what runs in the project, found by its processes: no state file of this version says what that is."""
    supervisors, marks = processes.supervisors_of(project), processes.of_project(project)
    flow_runs = [process for mark in marks for process in processes.marked(mark) if _is_flow_run(process)]
    for supervisor in supervisors:
        with suppress(psutil.NoSuchProcess):
            supervisor.terminate()
    _, left = psutil.wait_procs(supervisors, STOP_SECONDS)
    for supervisor in left:
        with suppress(psutil.NoSuchProcess):
            supervisor.kill()
    for mark in marks:
        processes.stop_marked(mark)
    _forget(project, [*processes.supervisors_of(project), *(left for mark in marks for left in processes.marked(mark))])
    return Stopped((), len(flow_runs)) if supervisors or marks else None


def _forget(project: Path, left: list[psutil.Process]) -> None:
    """Remove what says that a platform runs, and the key that the prefect command would take to any other server too."""
    if left:
        raise PlatformError(f"cannot end the processes {', '.join(str(process.pid) for process in left)}; the kernel holds them")
    for file in (STATE_FILE, PROFILE):
        (project / file).unlink(missing_ok=True)


def _is_flow_run(process: psutil.Process) -> bool:
    try:
        return "prefect.flow_engine" in process.cmdline() or "prefect.engine" in process.cmdline()
    except psutil.Error:
        return False


def _stop_supervisor(state: PlatformState) -> None:
    _signal(state, signal.SIGTERM)
    deadline = time.monotonic() + STOP_SECONDS
    while is_running(state.supervisor) and time.monotonic() < deadline:
        time.sleep(0.1)
    if is_running(state.supervisor):
        _signal(state, signal.SIGKILL)


def _signal(state: PlatformState, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.kill(state.supervisor.pid, number)
