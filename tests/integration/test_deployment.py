"""The deployments on a real server and worker: run, run again, refuse, side by side, compare, evaluate, cancel."""

from __future__ import annotations

import json
import re
import subprocess
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from mlflow.entities import Run

from flows.server import PrefectServer
from gkd_core.operations.doctor.web import basic
from gkd_core.records import ScoreTable
from gkd_core.tracking.flow_runs import Tracking

Prefect = Callable[..., "subprocess.CompletedProcess[str]"]
DEPLOYMENT = "gkd/full-pipeline"
FINISHED = "Flow run finished successfully"
STAGES = ["prepare-data", "learn-task-potsdam-rgb", "evaluate-potsdam-rgb", "bundle-potsdam-rgb", "report"]
pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]


def _runs(tracking: Tracking) -> list[Run]:
    return list(tracking.client.search_runs([tracking.experiment], order_by=["attributes.start_time ASC"]))


def _wait(condition: Callable[[], bool], seconds: float, what: str) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds} s for: {what}"
        time.sleep(0.2)


def _api(server: PrefectServer, path: str, content: dict[str, Any] | None = None) -> Any:
    request = urllib.request.Request(
        f"{server.url}/api/{path}",
        data=None if content is None else json.dumps(content).encode(),
        headers={"Content-Type": "application/json", **basic(server.environment["PREFECT_API_AUTH_STRING"])},
    )
    deadline = time.monotonic() + 60
    while True:
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            # SQLite is locked for a moment: Prefect's own client asks again too.
            if error.code != 503 or time.monotonic() > deadline:
                raise
        time.sleep(1)


def _submit(server: PrefectServer, name: str, parameters: dict[str, Any]) -> str:
    """Have a deployment run, as Prefect's pages do; the flow run's id."""
    deployment = _api(server, f"deployments/name/{name}")["id"]
    content = {"parameters": parameters, "state": {"type": "SCHEDULED"}}
    return str(_api(server, f"deployments/{deployment}/create_flow_run", content)["id"])


def _finished(server: PrefectServer, flow_run: str, project: Path) -> dict[str, Any]:
    ends = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")
    _wait(lambda: _flow_run(server, flow_run)["state"]["type"] in ends, 300, f"the flow run {flow_run} to end")
    found = _flow_run(server, flow_run)
    assert found["state"]["type"] == "COMPLETED", (
        str(found["state"]) + (project / "artifacts/logs/worker.log").read_text()[-4000:]
    )
    return found


def _artifacts(server: PrefectServer, key: str) -> list[dict[str, Any]]:
    return list(_api(server, "artifacts/filter", {"artifacts": {"key": {"any_": [key]}}}))


def _checkout_is_untouched(project: Path) -> bool:
    done = subprocess.run(["git", "status", "--porcelain"], cwd=project, capture_output=True, text=True, check=True)
    return done.stdout == ""


def test_run_by_name_then_again_with_nothing_to_do(
    deployed: Prefect, project: Path, tracking: Tracking, server: PrefectServer
) -> None:
    done = deployed("deployment", "run", DEPLOYMENT, "--watch")
    assert FINISHED in done.stdout, done.stdout + (project / "artifacts/logs/worker.log").read_text()
    header, *rows = (project / "artifacts/report/matrix.csv").read_text().splitlines()
    names = header.split(",")
    assert {row.split(",")[names.index("benchmark")] for row in rows} == {"P2R"}
    parent, *children = _runs(tracking)
    assert [child.data.tags["stage"] for child in children] == STAGES
    assert {run.info.status for run in (parent, *children)} == {"FINISHED"}
    assert children[1].data.metrics.keys() >= {"loss"}
    assert children[1].data.metrics["progress/updates"] == children[1].data.metrics["progress/planned"] > 0
    assert "miou/P2R/potsdam-irrg" in parent.data.metrics
    assert parent.data.tags["kind"] == "pipeline"
    assert [model.name for model in tracking.client.search_logged_models([tracking.experiment])] == ["student-potsdam-rgb"]
    assert _checkout_is_untouched(project)

    (progress,) = _artifacts(server, "progress-learn-task-potsdam-rgb")
    assert progress["type"] == "progress" and progress["data"] == 100.0
    assert re.search(r"done: \d+ updates in \d+ s", progress["description"])
    (page,) = _artifacts(server, "summary")
    assert "| learn-task-potsdam-rgb | ran |" in page["data"] and parent.info.run_id in page["data"]

    _finished(server, _submit(server, DEPLOYMENT, {}), project)
    (second,) = _runs(tracking)[1 + len(STAGES) :]
    restored = {f"restored.{child.data.tags['stage']}": child.info.run_id for child in children}
    assert {key: value for key, value in second.data.tags.items() if key.startswith("restored.")} == restored


@pytest.mark.parametrize(
    ("parameter", "word"), [('settings={"learn_task": {"updatez": 5}}', "updatez"), ("nonsense=1", "nonsense")]
)
def test_a_bad_parameter_is_refused_by_name_on_the_command_line(deployed: Prefect, parameter: str, word: str) -> None:
    done = deployed("deployment", "run", DEPLOYMENT, "--param", parameter)
    assert done.returncode != 0
    assert word in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("name", "parameters", "words"),
    [
        (DEPLOYMENT, {"overrides": 5}, "overrides"),
        (DEPLOYMENT, {"profile": "dmo"}, "'dmo' is not one of"),
        (DEPLOYMENT, {"settings": {"learn_task": {"updates": "many"}}}, "settings.learn_task.updates"),
        (DEPLOYMENT, {"settings": {"seeed": 1}}, "seeed"),
        ("gkd/compare", {"methods": ["gdk"]}, "methods"),
        ("gkd/evaluate", {"domains": []}, "model"),
    ],
)
def test_bad_parameters_are_refused_by_name_before_there_is_a_run(
    deployed: Prefect, server: PrefectServer, name: str, parameters: dict[str, Any], words: str
) -> None:
    before = _api(server, "flow_runs/count", {})
    with pytest.raises(urllib.error.HTTPError) as caught:
        _submit(server, name, parameters)
    assert words in caught.value.read().decode()
    assert _api(server, "flow_runs/count", {}) == before


def test_settings_that_do_not_fit_together_fail_the_run_by_name(deployed: Prefect, server: PrefectServer) -> None:
    flow_run = _submit(server, DEPLOYMENT, {"settings": {"evaluate": {"stride": [999, 999]}}})
    _wait(lambda: _flow_run(server, flow_run)["state"]["type"] == "FAILED", 120, "the run to fail")
    assert "evaluate: stride (999, 999) exceeds window" in _flow_run(server, flow_run)["state"]["message"]


@pytest.mark.slow
def test_two_runs_at_once_train_what_they_share_once(
    deployed: Prefect, project: Path, tracking: Tracking, server: PrefectServer
) -> None:
    before = len(_runs(tracking))
    parameters = {"settings": {"seed": 5}}
    flow_runs = [_finished(server, run, project) for run in [_submit(server, DEPLOYMENT, parameters) for _ in range(2)]]
    starts, ends = zip(*((run["start_time"], run["end_time"]) for run in flow_runs), strict=True)
    assert max(starts) < min(ends), "they did not run side by side"
    found = _runs(tracking)[before:]
    made = Counter(run.data.tags["stage"] for run in found if "stage" in run.data.tags)
    assert made.pop("prepare-data", 0) <= 1, "its result is there where another test of this file has run"
    assert made == Counter(stage for stage in STAGES if stage != "prepare-data")
    parents = [run for run in found if "stage" not in run.data.tags]
    assert len(parents) == 2 and {run.info.status for run in found} == {"FINISHED"}
    matrices = [_miou(run) for run in parents]
    assert matrices[0] and matrices[0] == matrices[1]
    assert _checkout_is_untouched(project)


def _miou(run: Run) -> dict[str, float]:
    return {name: value for name, value in run.data.metrics.items() if name.startswith("miou/")}


@pytest.mark.slow
def test_shares_of_labels_have_their_distillation_in_common(
    deployed: Prefect, project: Path, tracking: Tracking, server: PrefectServer
) -> None:
    before = len(_runs(tracking))
    parameters = {"methods": ["two-stage-mse"], "seeds": [0], "label_fractions": [1.0, 0.5], "at_once": 2}
    _finished(server, _submit(server, "gkd/compare", parameters), project)
    found = _runs(tracking)[before:]
    made = Counter(run.data.tags["stage"] for run in found if "stage" in run.data.tags)
    assert (made["distill-proxy"], made["distill-source-potsdam-rgb"]) == (1, 1)
    assert made["learn-task-potsdam-rgb"] == 4  # teacher and student, with either share
    table = ScoreTable.read(project / "artifacts/compare/matrix.json")
    rows = {(score.method, score.label_fraction) for score in table.scores}
    assert rows == {(method, fraction) for method in ("teacher", "two-stage-mse") for fraction in (1.0, 0.5)}
    (group,) = [run for run in found if run.data.tags["kind"] == "comparison"]
    inside = [run for run in found if run.data.tags.get("mlflow.parentRunId") == group.info.run_id]
    assert len(inside) == 4 and {run.info.status for run in (group, *inside)} == {"FINISHED"}
    (page,) = _artifacts(server, "comparison")
    assert "## Failed" not in page["data"]


def test_a_logged_model_is_measured_on_chosen_domains(
    deployed: Prefect, project: Path, tracking: Tracking, server: PrefectServer
) -> None:
    models = tracking.client.search_logged_models([tracking.experiment])
    model = next(model for model in models if model.tags["seed"] == "0" and model.params["method"] == "no-kd")
    parameters = {"model": f"models:/{model.model_id}", "domains": ["potsdam-irrg/val"]}
    _finished(server, _submit(server, "gkd/evaluate", parameters), project)
    (run,) = [run for run in _runs(tracking) if run.data.tags["kind"] == "evaluation"]
    (trained,) = [run for run in _runs(tracking) if "miou/P2R/vaihingen-irrg" in run.data.metrics][:1]
    key = "miou/P2R/potsdam-irrg"
    assert run.info.status == "FINISHED" and run.data.metrics[key] == trained.data.metrics[key]
    assert "miou/P2R/vaihingen-irrg" not in run.data.metrics
    (score,) = ScoreTable.read(project / "artifacts/evaluation/matrix.json").scores
    assert score.dataset == "potsdam-irrg/val"


@pytest.mark.slow
def test_a_domain_with_other_classes_is_refused_by_name(deployed: Prefect, server: PrefectServer, tracking: Tracking) -> None:
    model = tracking.client.search_logged_models([tracking.experiment])[0]
    flow_run = _submit(server, "gkd/evaluate", {"model": f"models:/{model.model_id}", "domains": ["cityscapes/val"]})
    _wait(lambda: _flow_run(server, flow_run)["state"]["type"] == "FAILED", 120, "the run to fail")
    assert "cityscapes/val: its classes are" in _flow_run(server, flow_run)["state"]["message"]


def test_cancel_stops_the_stage_and_tells_mlflow(
    deployed: Prefect, server: PrefectServer, tracking: Tracking, project: Path
) -> None:
    before = len(_runs(tracking))
    flow_run = _submit(server, DEPLOYMENT, {"settings": {"seed": 7, "learn_task": {"end_to_end_updates": 1_000_000}}})
    _wait(lambda: bool(_stage_processes(project)), 240, "the stage to start")
    assert deployed("flow-run", "cancel", flow_run).returncode == 0
    _wait(lambda: _flow_run(server, flow_run)["state"]["type"] == "CANCELLED", 60, "the flow run to be cancelled")
    _wait(lambda: not _stage_processes(project), 10, "the stage to end")
    _wait(lambda: "RUNNING" not in {run.info.status for run in _runs(tracking)}, 30, "MLflow to hear of it")
    assert {run.info.status for run in _runs(tracking)[before:]} == {"KILLED"}


def _flow_run(server: PrefectServer, flow_run: str) -> dict[str, Any]:
    return dict(_api(server, f"flow_runs/{flow_run}"))


def _stage_processes(project: Path) -> list[int]:
    """The stage, where it runs in a workspace of this project: tests beside this one have stages of the same name."""
    return [
        process.pid
        for process in psutil.process_iter(["cmdline", "cwd"])
        if (process.info["cmdline"] or [])[-4:] == ["run", "learn-task", "--source", "potsdam-rgb"]
        and Path(process.info["cwd"] or "/").is_relative_to(project)
    ]
