"""The state file of the local platform's supervisor: which service runs where, and its health.

The file outlives a power cut, so a reader asks `is_running` before it believes the rest.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from gkd_core.files import atomic_file
from gkd_core.paths import ARTIFACTS

FOLDER = ARTIFACTS / "platform"
STATE_FILE = FOLDER / "state.json"
Health = Literal["waiting", "starting", "healthy", "unresponsive", "restarting", "failed", "stopped"]


def now() -> datetime:
    """The time, to the second, in UTC."""
    return datetime.now(UTC).replace(microsecond=0)


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class ProcessMark(_Record):
    """A process, told apart from a later one of the same number by when it began."""

    pid: int
    began: float = Field(description="When it began, in seconds since 1970, as the system has it.")


class ServiceState(_Record):
    """One service: where it is and how it is."""

    name: str
    title: str
    health: Health
    page: str = Field(description="Address for people.")
    check: str = Field(description="Address that answers 200 while the service is well.")
    log: str = Field(description="Its log, from the project's folder.")
    since: datetime
    pid: int | None = None
    restarts: int = 0
    detail: str = Field("", description="Why it is as it is, where it is not well.")


class PlatformState(_Record):
    """The whole platform. It holds no secret: a password of the database never comes here."""

    supervisor: ProcessMark
    mark: str = Field(description="Value of the variable GKD_PLATFORM that every process of this platform carries.")
    ports: dict[str, int]
    database: str = Field(description="The database server, its password left out; or sqlite.")
    services: tuple[ServiceState, ...]

    @property
    def is_well(self) -> bool:
        """Whether every service is."""
        return all(service.health == "healthy" for service in self.services)

    @property
    def failed(self) -> tuple[ServiceState, ...]:
        """Services that the supervisor has given up."""
        return tuple(service for service in self.services if service.health == "failed")

    def write(self, project: Path) -> None:
        """Replace the project's state file, whole."""
        with atomic_file(project / STATE_FILE) as temporary:
            temporary.write_text(self.model_dump_json(indent=2) + "\n", encoding="utf-8")


def read_state(project: Path) -> PlatformState | None:
    """The project's state file; None where there is none, or one that another version wrote, or that is damaged."""
    try:
        return PlatformState.model_validate_json((project / STATE_FILE).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, ValidationError):
        return None


def has_unreadable_state(project: Path) -> bool:
    """Whether there is a state file that this version cannot read."""
    return (project / STATE_FILE).exists() and read_state(project) is None
