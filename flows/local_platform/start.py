"""Starting the supervisor, once for a project, and watching it bring the services up."""

import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO

from flows.local_platform import processes
from flows.local_platform.logs import begin_log, last_lines
from flows.local_platform.services import MLFLOW_SIGN_IN, MLFLOW_USERS, PROFILE, Ports, Service, client_environment, services
from flows.server import LOGS
from gkd_core.errors import PlatformError
from gkd_core.operations.backup.sqlite import FILES
from gkd_core.operations.postgres import Database, database_named
from gkd_core.system.child_process import child_process
from gkd_core.system.environment import NO_PROXY, OWN_HOSTS
from gkd_core.system.locks import try_lock
from gkd_core.system.loopback import is_free
from gkd_core.system.platform_state import FOLDER, PlatformState, has_unreadable_state, read_state
from gkd_core.system.process_marks import is_running
from gkd_core.system.server_keys import PREFECT_VARIABLE, ServerKeys, make_keys, make_private, read_keys, write_private

ENVIRONMENT_FILE = FOLDER / "env"
LOCK = FOLDER / "lock"
SET_UP_LOCK = FOLDER / "set-up.lock"
SUPERVISOR_LOG = LOGS / "supervisor.log"
SET_UP_LOG = LOGS / "set-up.log"
HAND_OVER_SECONDS = 60.0
# Passwords are hashed slowly on purpose: one that fitted is taken for a minute without that. One process serves: none is stale.
SIGN_IN = """[mlflow]
default_permission = NO_PERMISSIONS
database_uri = sqlite:///{users}
auth_cache_ttl_seconds = 60
"""


def running_state(project: Path) -> PlatformState | None:
    """The state of a platform whose supervisor lives; None where there is none, whatever a state file says."""
    state = read_state(project)
    return state if state is not None and is_running(state.supervisor) else None


def check_version(project: Path) -> None:
    """Refuse a project in which the platform of another version runs, or what its supervisor left behind.

    Raises:
        PlatformError: one runs there.
    """
    if not has_unreadable_state(project):
        return
    left = [process for mark in processes.of_project(project) for process in processes.marked(mark)]
    for process in (*processes.supervisors_of(project), *left):
        raise PlatformError(f"a platform of another version runs here (process {process.pid}): make down stops it, then make up")


def start_supervisor(project: Path, ports: Ports) -> bool:
    """See to it that the project has a supervisor.

    Returns:
        whether it was started here: False where there was one, or another command has just started it.

    Raises:
        PlatformError: a port is in use, the database refuses, or the supervisor did not start.
    """
    deadline = time.monotonic() + HAND_OVER_SECONDS
    while time.monotonic() < deadline:
        with _lock(project) as lock:
            if lock is not None:
                _start(project, ports, lock)
                return True
        if running_state(project) is not None:
            return False
        time.sleep(0.2)  # another command holds the lock and is about to start it, or to fail
    raise PlatformError(f"another process has held {LOCK} for {HAND_OVER_SECONDS:.0f} s without starting; run make down")


@contextmanager
def _lock(project: Path) -> Iterator[IO[str] | None]:
    """The platform's lock; None where another has it. The supervisor inherits it, so it is held for as long as that lives."""
    (project / FOLDER).mkdir(parents=True, exist_ok=True)
    with (project / LOCK).open("a") as stream:
        yield stream if try_lock(stream) else None


def _start(project: Path, ports: Ports, lock: IO[str]) -> None:
    left = read_state(project)
    if left is not None:
        processes.stop_marked(left.mark)  # what a supervisor that was killed has left behind
    database = database_named()
    keys = prepare_keys(project)
    check_ports(services(project, ports, database, keys), ports)
    _prepare_database(project, database)
    write_environment(project, ports, keys)
    log = project / SUPERVISOR_LOG
    begin_log(log)
    arguments = [str(port) for port in (ports.prefect, ports.mlflow, ports.worker)]
    with log.open("wb") as output:
        supervisor = subprocess.Popen(
            [sys.executable, "-m", processes.SUPERVISOR, *arguments],
            cwd=project,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            pass_fds=(lock.fileno(),),
            start_new_session=True,
        )
    while (state := running_state(project)) is None or state.supervisor.pid != supervisor.pid:
        if supervisor.poll() is not None:
            reason = (last_lines(log, 1) or ["no word"])[0]
            raise PlatformError(f"the supervisor ended at its start: {reason}; see {SUPERVISOR_LOG}")
        time.sleep(0.05)


def check_ports(wanted: tuple[Service, ...], ports: Ports) -> None:
    """Refuse ports that somebody listens on.

    Raises:
        PlatformError: one is in use, or two are the same; the message names it and how to choose another.
    """
    numbers = ports.as_dict()
    for service in wanted:
        port = numbers[service.name]
        option = f"make up {service.name.upper()}_PORT=… (or --{service.name}-port)"
        if list(numbers.values()).count(port) > 1:
            raise PlatformError(f"port {port} is given to two services; choose another by {option}")
        if not is_free(port):
            raise PlatformError(f"port {port} ({service.title}) is in use; choose another by {option}")


def _prepare_database(project: Path, database: Database | None) -> None:
    if database is not None:
        database.create_databases()
        return
    for file in FILES.values():
        make_private(project / file)


def prepare_keys(project: Path) -> ServerKeys:
    """The platform's keys, made at its first start, and the files by which servers and clients know of them.

    Raises:
        PlatformError: the file of keys is damaged, or others can read it.
    """
    keys, made = make_keys(project / FOLDER)
    if made:
        (project / MLFLOW_USERS).unlink(missing_ok=True)  # it knows the password of keys that are gone
    make_private(project / MLFLOW_USERS)
    write_private(project / PROFILE, f'active = "gkd"\n\n[profiles.gkd]\n{PREFECT_VARIABLE} = "{keys.prefect}"\n')
    write_private(project / MLFLOW_SIGN_IN, SIGN_IN.format(users=(project / MLFLOW_USERS).resolve()))
    return keys


def write_environment(project: Path, ports: Ports, keys: ServerKeys) -> None:
    """Write the variables by which other programs find this platform and sign in, for `source`; the owner's alone."""
    lines = [f"export {name}={shlex.quote(value)}\n" for name, value in client_environment(ports, keys).items()]
    spared = ",".join(OWN_HOSTS)  # by a proxy of this network, which the prefect command would ask for our own server
    lines += [f'export {name}="${{{name}:+${name},}}{spared}"\n' for name in NO_PROXY]
    write_private(project / ENVIRONMENT_FILE, "".join(lines))


def keys_of(project: Path) -> ServerKeys:
    """The keys of a platform that runs.

    Raises:
        PlatformError: their file is gone, damaged, or others can read it.
    """
    keys = read_keys(project / FOLDER)
    if keys is None:
        raise PlatformError(f"{project / FOLDER}: the file with the platform's keys is gone; make down, then make up")
    return keys


def bring_up(project: Path, ports: Ports, show: Callable[[PlatformState, str], None]) -> PlatformState:
    """Wait until every service is well and the set-up is done.

    Args:
        show: called again and again with the state and a word about the set-up.

    Raises:
        PlatformError: the supervisor gave a service up or ended, or the set-up failed.
    """
    with ExitStack() as stack:
        set_up: subprocess.Popen[bytes] | None = None
        while True:
            state = running_state(project)
            if state is None:
                raise PlatformError(f"the supervisor ended; see {SUPERVISOR_LOG}")
            if state.failed:
                first = state.failed[0]
                raise PlatformError(f"{first.title}: {first.detail}; see {first.log}; make down, then make up, tries again")
            prefect_is_well = next(service for service in state.services if service.name == "prefect").health == "healthy"
            if set_up is None and prefect_is_well:
                set_up = stack.enter_context(_set_up(project, ports))
            done = set_up is not None and _check_set_up(project, set_up)
            show(state, "done" if done else "waiting for Prefect" if set_up is None else "running")
            if done and state.is_well:
                return state
            time.sleep(0.25)


@contextmanager
def _set_up(project: Path, ports: Ports) -> Iterator[subprocess.Popen[bytes]]:
    environment = {
        **client_environment(ports, keys_of(project)),
        "PREFECT_HOME": str(project / FOLDER / "prefect"),
        "PWD": str(project),
        "COLUMNS": "200",
    }
    command = [sys.executable, "-m", "flows.local_platform.set_up", str(project / SET_UP_LOCK)]
    with child_process(command, cwd=project, env=environment, log=project / SET_UP_LOG) as process:
        yield process


def _check_set_up(project: Path, process: subprocess.Popen[bytes]) -> bool:
    status = process.poll()
    if status:
        reason = " / ".join(last_lines(project / SET_UP_LOG, 2)) or f"exit status {status}"
        raise PlatformError(f"the set-up failed: {reason}; see {SET_UP_LOG}")
    return status is not None


def ports_of(state: PlatformState) -> Ports:
    """The ports that a running platform has."""
    return Ports(**state.ports)


def is_customary(state: PlatformState) -> bool:
    """Whether the `prefect` command finds this platform by prefect.toml alone."""
    return ports_of(state).prefect == Ports().prefect and "PREFECT_API_URL" not in os.environ
