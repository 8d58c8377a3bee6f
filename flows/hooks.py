"""What every flow does beside its work: `@flow(name="gkd", **HOOKS)`.

Prefect calls a hook in the flow's process, or in one of the worker's where the flow's was killed or cancelled. Where the worker
died too nobody calls it; then the server marks the run Crashed and runs `gkd/tidy` (`flows/automations.py`), and the next run
of any flow reconciles as well. A hook never raises: it logs what it could not do.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypedDict

from prefect.client.schemas.objects import FlowRun, State
from prefect.flows import Flow, FlowStateHook
from prefect.logging import get_logger

from flows.counted_dead import end_where_counted_dead
from flows.flow_context import settings_of
from flows.lifetime import end_promptly
from flows.reconciliation import reconcile
from gkd_core.messages import one_line
from gkd_core.settings import Settings
from gkd_core.storage.mlflow_store import tracking_address
from gkd_core.tracking.open_runs import End, OpenRuns

Hook = FlowStateHook[..., Any]


class Hooks(TypedDict):
    """Keyword arguments of `@flow`."""

    on_running: list[Hook]
    on_failure: list[Hook]
    on_crashed: list[Hook]
    on_cancellation: list[Hook]


def begin(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:  # Prefect gives the names
    """Called when a run begins: arranges its end by signal, or loss of worker or server; ends in MLflow what others left open."""
    end_promptly()
    if flow_run.parent_task_run_id is None:
        end_where_counted_dead(flow_run.id)
        _try("reconcile MLflow with Prefect", lambda: reconcile(_address(flow_run.parameters)))


def tell_mlflow(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:
    """Called when a run failed, crashed or was cancelled: end in MLflow what its process could not end."""
    status: End = "KILLED" if state.is_cancelling() or state.is_cancelled() else "FAILED"
    _try("tell MLflow how the run ended", lambda: OpenRuns(_address(flow_run.parameters)).end(str(flow_run.id), status))


HOOKS: Hooks = {
    "on_running": [begin],
    "on_failure": [tell_mlflow],
    "on_crashed": [tell_mlflow],
    "on_cancellation": [tell_mlflow],
}


def _try(what: str, action: Callable[[], object]) -> None:
    try:
        action()
    except Exception as error:  # a hook that raised would hide what it was called for
        get_logger("hooks").warning("could not %s: %s", what, one_line(error, 500) or type(error).__name__)


def _address(parameters: Mapping[str, Any]) -> str:
    """Where the run logs to: by its settings, or by default where they cannot be loaded, as that may be why it failed."""
    try:
        settings = settings_of(parameters)
    except Exception:  # parameters may be anything, and the flow's own message names what is wrong with them
        settings = Settings()
    return tracking_address(settings.tracking.uri, Path.cwd())
