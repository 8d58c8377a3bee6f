"""Open runs are found in every experiment, by the flow run that began them."""

from __future__ import annotations

from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from gkd_core.errors import PlatformError
from gkd_core.tracking.open_runs import OpenRuns


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"sqlite:///{tmp_path_factory.mktemp('store') / 'mlflow.db'}"


def test_runs_of_every_experiment_by_flow_run_then_ended(address: str) -> None:
    client = MlflowClient(address)
    experiments = [client.create_experiment(name) for name in ("one", "two")]

    def run(experiment: str, flow_run: str | None) -> str:
        return str(client.create_run(experiment, tags={"prefect.flow_run_id": flow_run} if flow_run else {}).info.run_id)

    dead = [run(experiment, "dead") for experiment in experiments]
    alive, other = run(experiments[0], "alive"), run(experiments[1], None)
    ended = run(experiments[0], "dead")
    client.set_terminated(ended, "FINISHED")
    store = OpenRuns(address)
    found = store.by_flow_run()
    assert {flow: sorted(runs) for flow, runs in found.items()} == {"dead": sorted(dead), "alive": [alive]}

    assert store.end("dead", "FAILED") == 2
    statuses = {name: client.get_run(name).info.status for name in (*dead, alive, other, ended)}
    assert statuses == {**dict.fromkeys(dead, "FAILED"), alive: "RUNNING", other: "RUNNING", ended: "FINISHED"}
    assert store.by_flow_run() == {"alive": [alive]}


def test_a_store_that_does_not_exist_has_no_runs_and_is_not_made(tmp_path: Path) -> None:
    assert OpenRuns(f"sqlite:///{tmp_path / 'mlflow.db'}").by_flow_run() == {}
    assert list(tmp_path.iterdir()) == []


def test_an_address_of_no_known_kind_is_refused() -> None:
    with pytest.raises(PlatformError, match="MLflow at nonsense://x"):
        OpenRuns("nonsense://x")
