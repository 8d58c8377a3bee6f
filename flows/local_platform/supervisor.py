"""The process behind `make up`: it keeps every service alive until SIGTERM, then stops all of them and ends.

Run by `flows.local_platform.start`, apart from any terminal, with the platform's lock held open for it.
"""

import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from threading import Event, Lock, Thread
from typing import Any, NamedTuple

import psutil

from flows.local_platform import processes
from flows.local_platform.logs import begin_log, bound_log
from flows.local_platform.orphans import end_orphans, living
from flows.local_platform.service_monitor import Report, ServiceMonitor
from flows.local_platform.services import Ports, Service, client_environment, services
from flows.local_platform.start import keys_of
from gkd_core.errors import GkdError
from gkd_core.operations.postgres import VARIABLE, database_named
from gkd_core.system.child_process import child_process
from gkd_core.system.loopback import answers
from gkd_core.system.platform_state import Health, PlatformState, ServiceState, now

LOG_CHECK_SECONDS = 60.0
CHILD_SECONDS = 10.0
RECONCILIATION_SECONDS = 30.0


class StateWriter:
    """The platform's state, shared by the monitors' threads."""

    def __init__(self, project: Path, state: PlatformState) -> None:
        self._project = project
        self._state = state
        self._lock = Lock()
        state.write(project)

    def health(self, name: str) -> Health:
        """How a service is."""
        with self._lock:
            return next(service.health for service in self._state.services if service.name == name)

    def note(self, name: str, **changes: Any) -> None:
        """Change what is known of a service. `since` is when its health last changed."""
        with self._lock:
            services = tuple(_changed(service, changes) if service.name == name else service for service in self._state.services)
            self._state = self._state.model_copy(update={"services": services})
            print(f"{now().isoformat()} {name}: {changes}", file=sys.stderr, flush=True)
            try:
                self._state.write(self._project)
            except OSError as error:  # a full disk must not end a service that runs well
                print(f"{now().isoformat()} the state file could not be written: {error}", file=sys.stderr, flush=True)


def first_state(service: Service) -> ServiceState:
    """A service before it is started."""
    return ServiceState(
        name=service.name,
        title=service.title,
        health="waiting",
        page=service.page,
        check=service.check,
        log=str(service.log),
        since=now(),
        detail=f"for {' and '.join(service.needs)}" if service.needs else "",
    )


def _changed(service: ServiceState, changes: dict[str, Any]) -> ServiceState:
    since = now() if changes.get("health", service.health) != service.health else service.since
    return service.model_copy(update={"since": since, **changes})


class _Run(NamedTuple):
    """A service's process, as its monitor sees it: the guard tells how it ended, `pid` is the service itself."""

    pid: int
    guard: subprocess.Popen[bytes]

    def poll(self) -> int | None:
        return self.guard.poll()


class Supervisor:
    """The services of one project, each in a thread of its own."""

    def __init__(self, project: Path, ports: Ports, mark: str) -> None:
        database = database_named()
        os.environ.pop(VARIABLE, None)  # flow runs have no business with it
        self._project = project
        self._mark = mark
        keys = keys_of(project)
        self._key = keys.prefect
        self._client = client_environment(ports, keys)
        self._services = services(project, ports, database, keys)
        self._stops = {service.name: Event() for service in self._services}
        state = PlatformState(
            supervisor=processes.mark_of(os.getpid()),
            mark=mark,
            ports=ports.as_dict(),
            database=database.shown if database else "sqlite",
            services=tuple(first_state(service) for service in self._services),
        )
        self._state = StateWriter(project, state)

    def run(self, stop: Event) -> None:
        """Keep the services until `stop` is set, then stop them, those that need others first."""
        threads = {service.name: Thread(target=self._monitor(service).keep, name=service.name) for service in self._services}
        for thread in threads.values():
            thread.start()
        while not stop.wait(LOG_CHECK_SECONDS):
            for service in self._services:
                bound_log(self._project / service.log)
        self._stop(threads)

    def _stop(self, threads: dict[str, Thread]) -> None:
        interrupted = self._flow_runs_live()
        self._stop_together(threads, [service.name for service in self._services if service.needs])
        if interrupted:
            self._tell_mlflow()
        self._stop_together(threads, [service.name for service in self._services if not service.needs])

    def _stop_together(self, threads: dict[str, Thread], names: list[str]) -> None:
        for name in names:
            self._stops[name].set()
        for name in names:
            threads[name].join()

    def _flow_runs_live(self) -> bool:
        try:
            return bool(living(self._client["PREFECT_API_URL"], self._key))
        except GkdError as error:  # then MLflow is told when a run of any flow begins
            _say(f"Prefect could not be asked for flow runs: {error}")
            return False

    def _tell_mlflow(self) -> None:
        """End in MLflow what the flow runs that were stopped left open, while both servers stand.

        A flow that is stopped in the midst of a stage seldom gets to do so itself. A process of its own, as Prefect and MLflow
        take seconds to load and much memory, and the supervisor is to be small.
        """
        command = [sys.executable, "-m", "flows.reconciliation", self._client["MLFLOW_TRACKING_URI"]]
        with child_process(command, cwd=self._project, env=self._client) as process:
            try:
                status = process.wait(RECONCILIATION_SECONDS)
            except subprocess.TimeoutExpired:
                status = None
        if status != 0:
            _say(f"MLflow could not be told of the flow runs that were stopped: exit status {status}")

    def _monitor(self, service: Service) -> ServiceMonitor:
        stop = self._stops[service.name]
        return ServiceMonitor(
            service=service,
            start=lambda: self._start(service),
            answers=lambda: answers(service.check),
            ready=lambda: all(self._state.health(name) == "healthy" for name in service.needs),
            report=self._report(service.name),
            stop=stop,
        )

    def _report(self, name: str) -> Report:
        def report(health: Health, *, pid: int | None = None, restarts: int = 0, detail: str = "") -> None:
            self._state.note(name, health=health, pid=pid, restarts=restarts, detail=detail)

        return report

    @contextmanager
    def _start(self, service: Service) -> Iterator[_Run]:
        log = self._project / service.log
        begin_log(log)
        service.cwd.mkdir(parents=True, exist_ok=True)
        mark = f"{self._mark}:{service.name}"
        environment = {**service.environment, processes.VARIABLE: mark}
        with self._no_orphans() if service.needs else nullcontext():
            try:
                with child_process(service.command, cwd=service.cwd, env=environment, log=log) as guard:
                    yield _Run(_child_of(guard.pid), guard)
            finally:
                # Prefect's worker starts flow runs in sessions of their own: the guard does not end those.
                processes.stop_marked(mark)

    @contextmanager
    def _no_orphans(self) -> Iterator[None]:
        """Around a life of the worker: no flow run is said to live while there is none."""
        end_orphans(self._client["PREFECT_API_URL"], self._key)
        try:
            yield
        finally:
            try:
                end_orphans(self._client["PREFECT_API_URL"], self._key)
            except GkdError as error:  # the server is gone; it is done before the worker's next start
                _say(f"flow runs could not be marked as ended: {error}")


def _say(text: str) -> None:
    print(f"{now().isoformat()} {text}", file=sys.stderr, flush=True)


def _child_of(guard: int) -> int:
    """The process that a guard has started; the guard itself where it is gone already."""
    deadline = time.monotonic() + CHILD_SECONDS
    while time.monotonic() < deadline:
        try:
            children = psutil.Process(guard).children()
        except psutil.NoSuchProcess:
            return guard
        if children:
            return children[0].pid
        time.sleep(0.05)
    return guard


def main() -> None:
    """Supervise, as `python -m flows.local_platform.supervisor PREFECT_PORT MLFLOW_PORT WORKER_PORT`, in the project's folder."""
    stop = Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    ports = Ports(*(int(argument) for argument in sys.argv[1:]))
    Supervisor(Path.cwd(), ports, secrets.token_hex(8)).run(stop)


if __name__ == "__main__":
    main()
