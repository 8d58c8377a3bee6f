"""The local platform, supervised, on loopback: Prefect's server, MLflow's, a worker. `python -m flows.local_platform up`."""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.live import Live

from flows.local_platform.console import next_steps, print_state, progress
from flows.local_platform.services import Ports
from flows.local_platform.start import bring_up, check_version, ports_of, running_state, start_supervisor
from flows.local_platform.stop import stop_platform
from gkd_core.cli import run_command_line
from gkd_core.errors import PlatformError
from gkd_core.system.loopback import answers
from gkd_core.system.platform_state import PlatformState

EXIT_UNWELL = 1
WIDTH_OF_LOGS = 160
console = Console(highlight=False, width=None if sys.stdout.isatty() else WIDTH_OF_LOGS)
app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__)


def _port(service: str, default: int) -> Any:
    text = f"Port of {service}; {default} where left out."
    return typer.Option(f"--{service}-port", envvar=f"{service.upper()}_PORT", min=1, max=65535, help=text)


@app.command("up")
def up_command(
    prefect_port: Annotated[int | None, _port("prefect", Ports.prefect)] = None,
    mlflow_port: Annotated[int | None, _port("mlflow", Ports.mlflow)] = None,
    worker_port: Annotated[int | None, _port("worker", Ports.worker)] = None,
) -> None:
    """Start what does not run yet, wait until all of it is well, and (again) tell Prefect's server of the deployments."""
    project = Path.cwd()
    _check_project(project)
    check_version(project)
    given = {"prefect": prefect_port, "mlflow": mlflow_port, "worker": worker_port}
    chosen = {name: port for name, port in given.items() if port is not None}
    started = running_state(project) is None and start_supervisor(project, Ports(**chosen))
    ports = _running_ports(project, chosen)
    with Live(console=console, transient=True, refresh_per_second=4) as live:
        state = bring_up(project, ports, lambda state, set_up: live.update(progress(state, set_up)))
    console.print("The platform is up." if started else "The platform was up already; its set-up was applied again.")
    print_state(console, state)
    console.print(next_steps(state, project), soft_wrap=True)


@app.command("down")
def down_command() -> None:
    """Stop every service and every flow run, and leave no process."""
    with console.status("stopping: the worker and its flow runs, then the servers"):
        stopped = stop_platform(Path.cwd())
    if stopped is None:
        console.print("Nothing was running.")
        return
    names = ", ".join(service.title for service in stopped.services) or "the supervisor"
    runs = f", and {stopped.flow_runs} flow run{'s' if stopped.flow_runs != 1 else ''}" if stopped.flow_runs else ""
    console.print(f"Stopped: {names}{runs}.", soft_wrap=True)


@app.command("status")
def status_command() -> None:
    """Show what runs where; exit with 1 where something is not well."""
    check_version(Path.cwd())
    state = running_state(Path.cwd())
    if state is None:
        console.print("Nothing is running; `make up` starts it.")
        raise typer.Exit(EXIT_UNWELL)
    state = _asked_again(state)
    print_state(console, state)
    if not state.is_well:
        raise typer.Exit(EXIT_UNWELL)


def _asked_again(state: PlatformState) -> PlatformState:
    """The state, with services that were well a moment ago and do not answer now."""
    services = tuple(
        service.model_copy(update={"health": "unresponsive"})
        if service.health == "healthy" and not answers(service.check)
        else service
        for service in state.services
    )
    return state.model_copy(update={"services": services})


def _running_ports(project: Path, chosen: dict[str, int]) -> Ports:
    """The ports of what runs, which must be those that were chosen."""
    state = running_state(project)
    if state is None:
        raise PlatformError("the supervisor ended just now; run make up again")
    for name, port in chosen.items():
        if state.ports[name] != port:
            raise PlatformError(f"{name} runs on port {state.ports[name]} already; make down, before it can move to {port}")
    return ports_of(state)


def _check_project(project: Path) -> None:
    if not (project / "prefect.yaml").exists():
        raise PlatformError(f"{project}: no prefect.yaml here; run this in the project's folder")


def main() -> None:
    """The command `python -m flows.local_platform`."""
    run_command_line(app)


if __name__ == "__main__":
    main()
