"""The deployment gkd/full-pipeline on a real server and worker: run, run again, refuse, cancel."""

from __future__ import annotations

import json
import re
import subprocess
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from mlflow.entities import Run

from flows.server import PrefectServer
from gkd_core.adapters.mlflow_tracking import Tracking

Prefect = Callable[..., "subprocess.CompletedProcess[str]"]
DEPLOYMENT = "gkd/full-pipeline"
FINISHED = "Flow run finished successfully"
STAGES = ["prepare-data", "learn-task-potsdam-rgb", "evaluate-potsdam-rgb", "report"]
pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]


def _runs(tracking: Tracking) -> list[Run]:
    return list(tracking.client.search_runs([tracking.experiment], order_by=["attributes.start_time ASC"]))


def _wait(condition: Callable[[], bool], seconds: float, what: str) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds} s for: {what}"
        time.sleep(0.2)


def test_run_by_name_then_again_with_nothing_to_do(deployed: Prefect, project: Path, tracking: Tracking) -> None:
    done = deployed("deployment", "run", DEPLOYMENT, "--watch")
    assert FINISHED in done.stdout, done.stdout + (project / "artifacts/logs/worker.log").read_text()
    header, *rows = (project / "artifacts/report/matrix.csv").read_text().splitlines()
    assert header == "method,teacher,student,seed,benchmark,domain,miou"
    assert {row.split(",")[4] for row in rows} == {"P2R"}
    parent, *children = _runs(tracking)
    assert [child.data.tags["stage"] for child in children] == STAGES
    assert {run.info.status for run in (parent, *children)} == {"FINISHED"}
    assert children[1].data.metrics.keys() >= {"loss"}
    assert "miou/P2R/potsdam-irrg" in parent.data.metrics
    assert [model.name for model in tracking.client.search_logged_models([tracking.experiment])] == ["student-potsdam-rgb"]

    done = deployed("deployment", "run", DEPLOYMENT, "--watch")
    assert FINISHED in done.stdout
    (second,) = _runs(tracking)[1 + len(STAGES) :]
    restored = {f"restored.{child.data.tags['stage']}": child.info.run_id for child in children}
    assert {key: value for key, value in second.data.tags.items() if key.startswith("restored.")} == restored


def test_unknown_parameter_is_refused_by_name(deployed: Prefect) -> None:
    done = deployed("deployment", "run", DEPLOYMENT, "--param", "nonsense=1")
    assert done.returncode != 0
    assert "nonsense" in done.stdout + done.stderr


def test_parameter_of_the_wrong_type_is_refused_by_name(deployed: Prefect) -> None:
    done = deployed("deployment", "run", DEPLOYMENT, "--param", "overrides=5")
    assert done.returncode != 0
    assert "overrides" in done.stdout + done.stderr


def test_unknown_setting_fails_the_run_by_name(deployed: Prefect, server: PrefectServer) -> None:
    done = deployed("deployment", "run", DEPLOYMENT, "--param", 'overrides=["seeed=1"]', "--watch")
    state = _flow_run(server, _id_in(done.stdout))["state"]
    assert state["type"] == "FAILED"
    assert "seeed: unknown key" in state["message"]


def test_cancel_stops_the_stage_and_tells_mlflow(deployed: Prefect, server: PrefectServer, tracking: Tracking) -> None:
    before = len(_runs(tracking))
    long = '["seed=7", "learn_task.end_to_end_updates=1000000"]'
    flow_run = _id_in(deployed("deployment", "run", DEPLOYMENT, "--param", f"overrides={long}").stdout)
    _wait(lambda: bool(_stage_processes()), 240, "the stage to start")
    assert deployed("flow-run", "cancel", flow_run).returncode == 0
    _wait(lambda: _flow_run(server, flow_run)["state"]["type"] == "CANCELLED", 60, "the flow run to be cancelled")
    _wait(lambda: not _stage_processes(), 10, "the stage to end")
    _wait(lambda: "RUNNING" not in {run.info.status for run in _runs(tracking)}, 30, "MLflow to hear of it")
    assert {run.info.status for run in _runs(tracking)[before:]} == {"KILLED"}


def _id_in(text: str) -> str:
    found = re.search(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", text)
    assert found, text
    return found[0]


def _flow_run(server: PrefectServer, flow_run: str) -> dict[str, Any]:
    with urllib.request.urlopen(f"{server.url}/api/flow_runs/{flow_run}", timeout=30) as answer:
        return dict(json.load(answer))


def _stage_processes() -> list[int]:
    return [
        process.pid
        for process in psutil.process_iter(["cmdline"])
        if (process.info["cmdline"] or [])[-4:] == ["run", "learn-task", "--source", "potsdam-rgb"]
    ]
