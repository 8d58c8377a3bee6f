"""The state file as the supervisor keeps it: one change at a time, each written whole."""

import sys
from pathlib import Path
from threading import Lock
from typing import Any

from flows.local_platform.services import Service
from gkd_core.system.platform_state import Health, PlatformState, ServiceState, now


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
