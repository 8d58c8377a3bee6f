"""What flows tell MLflow of runs that could not tell it themselves; a hook never raises."""

from __future__ import annotations

import logging
import uuid
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from prefect.states import Cancelled, Cancelling, Crashed, Failed

from flows.hooks import HOOKS, tell_mlflow
from gkd_core.settings import Settings, dump_settings
from gkd_core.tracking.flow_runs import FLOW_RUN_TAG, Tracking


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch, mlflow_store: Path) -> Tracking:
    monkeypatch.chdir(mlflow_store)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return Tracking(Settings(), mlflow_store)


@pytest.fixture(scope="module")
def mlflow_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with an MLflow store, made once: making one takes seconds."""
    project = tmp_path_factory.mktemp("project")
    (project / "params.yaml").write_text(dump_settings(Settings()), encoding="utf-8")
    return project


def _flow_run(**parameters: Any) -> Any:
    return SimpleNamespace(id=uuid.uuid4(), parameters=parameters, parent_task_run_id=None)


def _open(store: Tracking, flow_run: Any) -> str:
    return str(store.client.create_run(store.experiment, tags={FLOW_RUN_TAG: str(flow_run.id)}).info.run_id)


def _status(store: Tracking, run: str) -> str:
    return str(store.client.get_run(run).info.status)


@pytest.mark.parametrize(
    ("state", "status"), [(Crashed(), "FAILED"), (Failed(), "FAILED"), (Cancelling(), "KILLED"), (Cancelled(), "KILLED")]
)
def test_the_end_of_the_flow_run_is_that_of_its_mlflow_runs(store: Tracking, state: Any, status: str) -> None:
    ours, other = _flow_run(), _flow_run()
    runs, left = [_open(store, ours), _open(store, ours)], _open(store, other)
    tell_mlflow(None, ours, state)  # type: ignore[arg-type]
    assert [_status(store, run) for run in runs] == [status, status]
    assert _status(store, left) == "RUNNING"


@pytest.mark.parametrize("parameters", [{"overrides": ["seeed=1"]}, {"overrides": 5}, {"profile": "dmo"}, {"nonsense": 1}])
def test_settings_that_cannot_be_loaded_do_not_keep_mlflow_from_hearing(store: Tracking, parameters: dict[str, Any]) -> None:
    flow_run = _flow_run(**parameters)
    run = _open(store, flow_run)
    tell_mlflow(None, flow_run, Failed())  # type: ignore[arg-type]
    assert _status(store, run) == "FAILED"


def test_a_store_that_cannot_be_used_is_said_and_not_raised(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"nonsense://{tmp_path}")
    logger = logging.getLogger("prefect.hooks")
    monkeypatch.setattr(logger, "propagate", True)
    monkeypatch.setattr(logging.getLogger("prefect"), "propagate", True)
    with caplog.at_level(logging.WARNING):
        for name, hooks in HOOKS.items():
            if name != "on_running":
                for hook in hooks:  # type: ignore[attr-defined]
                    hook(None, _flow_run(), Crashed())
    assert len([record for record in caplog.records if "could not tell MLflow" in record.message]) == 3


def test_a_project_without_a_store_does_not_get_one_by_a_hook(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)
    tell_mlflow(None, _flow_run(), Crashed())  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []
