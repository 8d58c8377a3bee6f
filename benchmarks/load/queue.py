"""Flow runs put into the queue of a deployment, waited for, and read back from Prefect and MLflow."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from uuid import UUID

from mlflow.tracking import MlflowClient
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import (
    DeploymentFilter,
    DeploymentFilterId,
    FlowRunFilter,
    FlowRunFilterId,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import StateType

from gkd_core.storage.mlflow_store import PARENT_TAG
from gkd_core.tracking.flow_runs import FLOW_RUN_TAG

from .judge import Change, History, Trace

POLL_SECONDS = 5.0
PAGE = 200  # the most that Prefect's server gives
GOING_ON = [StateType.SCHEDULED, StateType.PENDING, StateType.RUNNING, StateType.CANCELLING, StateType.PAUSED]


class Queue:
    """The runs of one deployment."""

    def __init__(self, client: SyncPrefectClient, deployment: str) -> None:
        """Find the deployment, FLOW/NAME.

        Raises:
            ObjectNotFound: the server knows none of that name.
        """
        self._client = client
        self._deployment: UUID = client.read_deployment_by_name(deployment).id

    def put(self, runs: int) -> list[UUID]:
        """Queue so many runs, at once; their ids."""
        return [self._client.create_flow_run_from_deployment(self._deployment).id for _ in range(runs)]

    def wait(self, seconds: float, show: Callable[[int], None] = lambda left: None) -> int:
        """Return when none is left, or when the time is up; how many are left (a page of them at most).

        Args:
            show: called with how many are left, again and again.
        """
        deadline = time.monotonic() + seconds
        while (left := self._left()) and time.monotonic() < deadline:
            show(left)
            time.sleep(POLL_SECONDS)
        return left

    def _left(self) -> int:
        going_on = FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=GOING_ON)))
        of_this = DeploymentFilter(id=DeploymentFilterId(any_=[self._deployment]))
        return len(self._client.read_flow_runs(flow_run_filter=going_on, deployment_filter=of_this, limit=PAGE))

    def slots(self) -> int:
        """How many slots of the deployment's limit the server counts as taken."""
        limit = self._client.read_deployment(self._deployment).global_concurrency_limit
        return 0 if limit is None else limit.active_slots

    def histories(self, flow_runs: Iterable[UUID]) -> list[History]:
        """What Prefect has of these runs."""
        return [self._history(run) for run in flow_runs]

    def unfinished_tasks(self, flow_runs: Sequence[UUID]) -> list[str]:
        """Names of task runs of these flow runs that Prefect does not show as Completed."""
        mine = FlowRunFilter(id=FlowRunFilterId(any_=list(flow_runs)))
        found: list[str] = []
        while True:
            page = self._client.read_task_runs(flow_run_filter=mine, limit=PAGE, offset=len(found))
            found += ["" if run.state_type == StateType.COMPLETED else run.name for run in page]
            if len(page) < PAGE:
                return [name for name in found if name]

    def _history(self, flow_run: UUID) -> History:
        states = self._client.read_flow_run_states(flow_run)
        changes = sorted(
            (Change(str(state.type.value), str(state.name), state.timestamp) for state in states), key=lambda each: each.at
        )
        return History(str(flow_run), self._client.read_flow_run(flow_run).run_count, tuple(changes))


def traces(address: str, without: Sequence[str]) -> list[Trace]:
    """All runs of an MLflow server that flow runs have begun, but for those of some flow runs."""
    client = MlflowClient(address)
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    found, token = [], None
    while True:
        page = client.search_runs(experiments, f"tags.`{FLOW_RUN_TAG}` LIKE '%'", page_token=token)
        found += [
            Trace(
                flow_run=run.data.tags[FLOW_RUN_TAG],
                run=run.info.run_id,
                stage=run.data.tags["stage"] if PARENT_TAG in run.data.tags else None,
                status=run.info.status,
                began=_time(run.info.start_time),
                ended=None if run.info.end_time is None else _time(run.info.end_time),
            )
            for run in page
            if run.data.tags[FLOW_RUN_TAG] not in without
        ]
        token = page.token
        if not token:
            return found


def _time(milliseconds: int) -> datetime:
    return datetime.fromtimestamp(milliseconds / 1000, UTC)
