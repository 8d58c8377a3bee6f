"""One service, kept alive: started, watched by its process and its health, started again when either fails."""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from threading import Event
from typing import Protocol

from flows.local_platform.services import Service
from gkd_core.errors import GkdError
from gkd_core.system.platform_state import Health

FIRST_SECONDS = 1.0
LONGEST_SECONDS = 60.0
TICK_SECONDS = 0.5
CHECK_SECONDS = 5.0
MISSES = 12  # checks in a row without an answer, so a minute or two: a busy server is not a dead one


@dataclass
class Restarts:
    """The failures of one service within a span of time.

    Attributes:
        allowed: failures within `span` after which it is still started again.
        span: seconds for which a failure counts.
    """

    allowed: int = 5
    span: float = 900.0
    total: int = 0
    _times: list[float] = field(default_factory=list)

    def delay_after(self, now: float) -> float | None:
        """Note a failure at this time (seconds, of any clock that only goes forward).

        Returns:
            seconds to wait before the next start, doubled with each failure that counts; None: give up.
        """
        self._times = [time for time in self._times if now - time < self.span] + [now]
        if len(self._times) > self.allowed:
            return None
        self.total += 1
        return min(LONGEST_SECONDS, FIRST_SECONDS * 2.0 ** (len(self._times) - 1))


class Process(Protocol):
    """What is asked of a running service."""

    @property
    def pid(self) -> int:
        """Its number."""

    def poll(self) -> int | None:
        """Its exit status; None while it runs."""


class Report(Protocol):
    """Called when something about the service changes."""

    def __call__(self, health: Health, *, pid: int | None = None, restarts: int = 0, detail: str = "") -> None:
        """Note it."""


@dataclass
class ServiceMonitor:
    """Keeps one service.

    Attributes:
        start: runs the service while the block lasts, and leaves nothing of it behind.
        answers: whether the service says that it is well.
        ready: whether all that the service needs is well.
        stop: set when the service is to end.
        clock: seconds that only go forward.
        sleep: waits so many seconds, or less where `stop` is set; True when it is. (As Event.wait.)
    """

    service: Service
    start: Callable[[], AbstractContextManager[Process]]
    answers: Callable[[], bool]
    ready: Callable[[], bool]
    report: Report
    stop: Event
    restarts: Restarts = field(default_factory=Restarts)
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], bool] | None = None

    def keep(self) -> None:
        """Return when `stop` is set, or when the service has failed too often."""
        if not self._wait_for_needs():
            return
        while True:
            failure = self._run_once()
            if failure is None:
                self.report("stopped", restarts=self.restarts.total)
                return
            if not self._pause(failure):
                return

    def _run_once(self) -> str | None:
        try:
            with self.start() as process:
                return self._watch(process)
        except (OSError, GkdError) as error:  # no room for its log, too many open files: may pass
            return f"cannot start: {error}"

    def _wait_for_needs(self) -> bool:
        while not self.ready():
            if self._sleep(TICK_SECONDS):
                self.report("stopped")
                return False
        return True

    def _pause(self, failure: str) -> bool:
        """Wait before the next start; False where there is to be none."""
        delay = self.restarts.delay_after(self.clock())
        if delay is None:
            self.report(
                "failed", restarts=self.restarts.total, detail=f"{failure}; given up after {self.restarts.allowed} restarts"
            )
            return False
        self.report("restarting", restarts=self.restarts.total, detail=f"{failure}; again in {delay:.0f} s")
        if self._sleep(delay):
            self.report("stopped", restarts=self.restarts.total)
            return False
        return True

    def _watch(self, process: Process) -> str | None:
        """Look after a started service until it fails (why is returned) or is to stop (None)."""
        started = checked = self.clock()
        well, misses = False, 0
        self._say("starting", process)
        while not self._sleep(TICK_SECONDS):
            status = process.poll()
            if status is not None:
                return f"ended with exit status {status}"
            if well and self.clock() - checked < CHECK_SECONDS:
                continue
            answered, checked = self.answers(), self.clock()
            if answered:
                if not well or misses:
                    self._say("healthy", process)
                well, misses = True, 0
            elif well:
                misses += 1
                if misses >= MISSES:
                    return "stopped answering"
                if misses == 1:
                    self._say("unresponsive", process)
            elif self.clock() - started > self.service.start_seconds:
                return f"did not answer within {self.service.start_seconds:.0f} s"
        return None

    def _say(self, health: Health, process: Process) -> None:
        self.report(health, pid=process.pid, restarts=self.restarts.total)

    def _sleep(self, seconds: float) -> bool:
        return (self.sleep or self.stop.wait)(seconds)
