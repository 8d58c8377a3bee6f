"""The platform on the terminal: one table."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from flows.local_platform.services import Ports, mlflow_url, prefect_url
from flows.local_platform.start import ENVIRONMENT_FILE, is_customary
from gkd_core.system.platform_state import FOLDER, Health, PlatformState, ServiceState
from gkd_core.system.server_keys import FILE, USER

KEYS = FOLDER / FILE

COLOURS: dict[Health, str] = {
    "waiting": "dim",
    "starting": "yellow",
    "healthy": "green",
    "unresponsive": "red",
    "restarting": "yellow",
    "failed": "bold red",
    "stopped": "red",
}


def table_of(state: PlatformState) -> Table:
    """Service, state, address, pid, since and log, a row each."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("service", "state", "address", "pid", "since", "log"):
        table.add_column(title, no_wrap=title != "state", justify="right" if title == "pid" else "left")
    for service in state.services:
        table.add_row(service.title, _health(service), service.page, str(service.pid or "–"), _since(service.since), service.log)
    return table


def progress(state: PlatformState, set_up: str) -> RenderableType:
    """The table while the services come up."""
    return Group(table_of(state), Text(f"set-up (work pool, deployments, automations): {set_up}", style="dim"))


def next_steps(state: PlatformState, project: Path) -> str:
    """What one can do now that it is up."""
    ports = Ports(**state.ports)
    lines = [
        "",
        "Run:   prefect deployment run gkd/full-pipeline --watch",
        f"See:   {prefect_url(ports)} (Prefect), {mlflow_url(ports)} (MLflow); both ask for a key:",
        f"       {KEYS} has Prefect's, and MLflow's password for the user {USER}",
        f"Data:  {state.database if state.database != 'sqlite' else 'SQLite, below artifacts/'}",
        "Stop:  make down",
    ]
    if not is_customary(state):
        text = (project / ENVIRONMENT_FILE).read_text(encoding="utf-8")
        exports = [line for line in text.splitlines() if "PREFECT_API_URL" in line or "MLFLOW_TRACKING_URI" in line]
        lines[1:1] = [
            f"First: source {ENVIRONMENT_FILE}, in each terminal, as the addresses are not the usual ones:",
            *(f"       {line}" for line in exports),
        ]
    return "\n".join(lines)


def print_state(console: Console, state: PlatformState) -> None:
    """The table, as wide as it needs to be where nobody looks at a terminal."""
    console.print(table_of(state))


def _health(service: ServiceState) -> Text:
    text = Text(service.health, style=COLOURS[service.health])
    if service.restarts:
        text.append(f", restarted {service.restarts}×", style="dim")
    if service.detail:
        text.append(f" ({service.detail})", style="dim")
    return text


def _since(since: datetime) -> str:
    local = since.astimezone()
    return local.strftime("%H:%M:%S" if datetime.now(UTC) - since < timedelta(days=1) else "%Y-%m-%d %H:%M")
