"""MLflow's open runs end as Prefect says that their flow runs ended; what still runs, or is another server's, stays."""

from __future__ import annotations

import uuid
from types import SimpleNamespace
from typing import Any

import pytest
from prefect.states import Cancelled, Cancelling, Completed, Crashed, Failed, Pending, Running

from flows import reconciliation
from flows.reconciliation import Reconciliation, reconcile
from flows.tidy import summary


class Prefect:
    """A server that knows flow runs, and which task of which other flow run some of them are."""

    def __init__(self) -> None:
        self.runs: dict[uuid.UUID, Any] = {}
        self.tasks: dict[uuid.UUID, uuid.UUID] = {}
        self.asked = 0

    def add(self, state: Any, part_of: str | None = None) -> str:
        task = None
        if part_of is not None:
            task = uuid.uuid4()
            self.tasks[task] = uuid.UUID(part_of)
        run = SimpleNamespace(id=uuid.uuid4(), state=state, parent_task_run_id=task)
        self.runs[run.id] = run
        return str(run.id)

    def __enter__(self) -> Prefect:
        self.asked += 1
        return self

    def __exit__(self, *error: object) -> None:
        return None

    def read_flow_runs(self, flow_run_filter: Any) -> list[Any]:
        return [self.runs[run] for run in flow_run_filter.id.any_ if run in self.runs]

    def read_flow_run(self, run: uuid.UUID) -> Any:
        return self.runs[run]

    def read_task_runs(self, task_run_filter: Any) -> list[Any]:
        return [SimpleNamespace(flow_run_id=self.tasks[task]) for task in task_run_filter.id.any_]


class Store:
    """An MLflow store with open runs."""

    def __init__(self, flow_runs: list[str]) -> None:
        self.open = {run: ["some-run"] for run in flow_runs}
        self.ended: dict[str, str] = {}

    def by_flow_run(self) -> dict[str, list[str]]:
        return self.open

    def end(self, flow_run: str, status: str) -> int:
        self.ended[flow_run] = status
        return 1


@pytest.fixture
def prefect(monkeypatch: pytest.MonkeyPatch) -> Prefect:
    prefect = Prefect()
    monkeypatch.setattr(reconciliation, "get_client", lambda sync_client: prefect)
    return prefect


def _reconcile(monkeypatch: pytest.MonkeyPatch, flow_runs: list[str]) -> tuple[Store, Reconciliation]:
    store = Store(flow_runs)
    monkeypatch.setattr(reconciliation, "OpenRuns", lambda address: store)
    return store, reconcile("somewhere")


def test_each_end_has_its_status_and_what_runs_is_left(prefect: Prefect, monkeypatch: pytest.MonkeyPatch) -> None:
    ends = {Completed: "FINISHED", Failed: "FAILED", Crashed: "FAILED", Cancelled: "KILLED"}
    expected = {prefect.add(state()): status for state, status in ends.items()}
    going = [prefect.add(state()) for state in (Running, Pending, Cancelling)]
    stranger = str(uuid.uuid4())
    store, found = _reconcile(monkeypatch, [*expected, *going, stranger])
    assert store.ended == expected
    assert found == Reconciliation(expected, (stranger,))


def test_a_part_ends_with_the_flow_run_that_it_is_a_part_of(prefect: Prefect, monkeypatch: pytest.MonkeyPatch) -> None:
    dead, alive = prefect.add(Crashed()), prefect.add(Running())
    part = prefect.add(Running(), part_of=dead)
    inner = prefect.add(Running(), part_of=part)
    going = prefect.add(Running(), part_of=alive)
    store, found = _reconcile(monkeypatch, [part, inner, going])
    assert store.ended == {part: "FAILED", inner: "FAILED"}
    assert found.unknown == ()


def test_with_nothing_open_prefect_is_not_asked(prefect: Prefect, monkeypatch: pytest.MonkeyPatch) -> None:
    assert _reconcile(monkeypatch, [])[1] == Reconciliation({}, ())
    assert prefect.asked == 0


def test_tidy_says_what_it_did() -> None:
    assert summary(Reconciliation({}, ()), [], []) == "Nothing to tidy up."
    text = summary(Reconciliation({"abc": "FAILED"}, ("xyz",)), ["20260101-run"], ["/tmp/gkd-ray-1"])
    assert len(text.splitlines()) == 4
    assert all(word in text for word in ("abc", "FAILED", "xyz", "20260101-run", "gkd-ray-1"))
