"""Ends in MLflow the flow runs whose process could not do so, by what Prefect knows of them."""

import sys
from dataclasses import dataclass
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId, TaskRunFilter, TaskRunFilterId
from prefect.client.schemas.objects import FlowRun, StateType

from gkd_core.tracking.open_runs import End, OpenRuns

ENDS: dict[StateType, End] = {
    StateType.COMPLETED: "FINISHED",
    StateType.FAILED: "FAILED",
    StateType.CRASHED: "FAILED",
    StateType.CANCELLED: "KILLED",
}


@dataclass(frozen=True)
class Reconciliation:
    """What came of it.

    Attributes:
        ended: flow runs that had left MLflow runs open, and how these were ended.
        unknown: flow runs with open MLflow runs that this Prefect server does not know; they may be another server's.
    """

    ended: dict[str, End]
    unknown: tuple[str, ...]


def reconcile(address: str) -> Reconciliation:
    """End every MLflow run of the store that is RUNNING while its flow run has ended. Costs one query where there is none.

    Raises:
        PlatformError: MLflow cannot be used.
    """
    store = OpenRuns(address)
    left = store.by_flow_run()
    if not left:
        return Reconciliation({}, ())
    with get_client(sync_client=True) as client:
        known = _known(client, left)
        ends = {run.id: end for run in known.values() if (end := _end_of(client, run)) is not None}
    ended = {str(run): end for run, end in ends.items()}
    for run, end in ended.items():
        store.end(run, end)
    return Reconciliation(ended, tuple(run for run in left if run not in known))


def _known(client: SyncPrefectClient, flow_runs: dict[str, list[str]]) -> dict[str, FlowRun]:
    ids = [UUID(run) for run in flow_runs]
    return {str(run.id): run for run in client.read_flow_runs(flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=ids)))}


def _end_of(client: SyncPrefectClient, run: FlowRun) -> End | None:
    """How the flow run ended, or the one that it was a part of: they share a process. None where it still runs."""
    if run.state is not None and run.state.type in ENDS:
        return ENDS[run.state.type]
    if run.parent_task_run_id is None:
        return None
    parts = client.read_task_runs(task_run_filter=TaskRunFilter(id=TaskRunFilterId(any_=[run.parent_task_run_id])))
    parents = [part.flow_run_id for part in parts if part.flow_run_id is not None]
    return _end_of(client, client.read_flow_run(parents[0])) if parents else None


def main() -> None:
    """Reconcile, as `python -m flows.reconciliation MLFLOW_ADDRESS`, and say what was ended."""
    for run, end in reconcile(sys.argv[1]).ended.items():
        print(f"MLflow: the runs of flow run {run} were left RUNNING and are {end} now", flush=True)


if __name__ == "__main__":
    main()
