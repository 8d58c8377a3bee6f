"""Killed in the middle of a stage: the flow's process alone, then run again; and with its worker, so that nobody can tell."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from gkd_core.settings import Settings, settings_from_tree
from gkd_core.system.child_process import child_process
from gkd_core.tracking.flow_runs import Tracking
from gkd_core.tracking.open_runs import OpenRuns
from tests.integration.kills.orchestration import Platform, alive, wait_for

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]

UPDATES, EVERY = 600, 50


@pytest.fixture(scope="module")
def settings(project: Path, tiny_tree: dict[str, Any]) -> Settings:
    """Four stages in one process each; the second is long enough to be caught in the middle."""
    learn = tiny_tree["learn_task"] | {"end_to_end_updates": UPDATES, "checkpoint_every": EVERY, "log_every": 1}
    data = tiny_tree["data"] | {"benchmarks": ["P2R"]}
    settings = settings_from_tree(tiny_tree | {"method": "no-kd", "data": data, "learn_task": learn})
    (project / "params.yaml").write_text(yaml.safe_dump(settings.model_dump(mode="json")), encoding="utf-8")
    return settings


def _steps(project: Path) -> list[int]:
    files = list((project / "artifacts/runs").glob("learn-task-*/metrics.jsonl"))
    return [json.loads(line)["step"] for file in files for line in file.read_text().splitlines() if line.endswith("}")]


@pytest.mark.slow
def test_flow_process_was_killed_then_run_again(settings: Settings, platform: Platform, project: Path) -> None:
    struck = platform.run()
    wait_for(lambda: len(_steps(project)) > 2 * EVERY, "the middle of the stage")
    family = platform.processes()
    platform.flow_process().kill()
    wait_for(lambda: not alive(family), "the end of all that it had started", 30)
    platform.wait(struck, "CRASHED")
    before = _steps(project)
    assert 2 * EVERY < before[-1] < UPDATES

    again = platform.run()
    platform.wait(again, "COMPLETED")
    steps = _steps(project)
    assert set(steps) == set(range(1, UPDATES + 1))
    assert len(steps) - UPDATES <= EVERY, "at most the updates since the last checkpoint were done again"
    tracking = Tracking(settings, project)
    assert OpenRuns(tracking.address).by_flow_run() == {}
    runs = tracking.client.search_runs([tracking.experiment])
    ends = {flow: {run.info.status for run in runs if run.data.tags["prefect.flow_run_id"] == flow} for flow in (struck, again)}
    assert "FAILED" in ends[struck] and ends[again] == {"FINISHED"}


@pytest.fixture
def automations(platform: Platform) -> Iterator[Callable[[], list[str]]]:
    """The set-up's function, for the platform's server."""
    from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, temporary_settings

    from flows.automations import ensure_automations

    key = platform.environment["PREFECT_API_AUTH_STRING"]
    with temporary_settings({PREFECT_API_URL: f"{platform.url}/api", PREFECT_API_AUTH_STRING: key}):
        yield ensure_automations


def test_automations_are_made_once_and_brought_up_to_date(platform: Platform, automations: Callable[[], list[str]]) -> None:
    made = automations()
    assert made == ["gkd: no heartbeat, so crashed", "gkd: tidy after a crash or a cancellation"]
    assert automations() == []
    first, second = platform.call("automations/filter", {"sort": "CREATED_DESC"})[::-1]
    tidy = platform.call("deployments/name/gkd/tidy")["id"]
    assert [action["deployment_id"] for action in second["actions"]] == [tidy]

    # Somebody switched one off, and an older version of the set-up had another waiting time.
    platform.call(f"automations/{first['id']}", {"enabled": False}, "PATCH")
    changed = {key: first[key] for key in ("name", "description", "actions")} | {"trigger": first["trigger"] | {"within": 999}}
    platform.call(f"automations/{first['id']}", changed | {"enabled": False}, "PUT")
    assert automations() == [first["name"]]
    (found,) = [item for item in platform.call("automations/filter", {}) if item["name"] == first["name"]]
    assert (found["id"], found["enabled"], found["trigger"]["within"]) == (first["id"], False, first["trigger"]["within"])
    platform.call(f"automations/{first['id']}", {"enabled": True}, "PATCH")


@pytest.mark.slow
def test_a_run_whose_worker_died_too_is_marked_crashed_and_tidied(
    settings: Settings, platform: Platform, project: Path, automations: Callable[[], list[str]]
) -> None:
    automations()
    run = platform.run("seed=1", "learn_task.end_to_end_updates=1000000")
    address = Tracking(settings, project).address
    wait_for(lambda: run in OpenRuns(address).by_flow_run(), "MLflow to know of the run")
    wait_for(lambda: any("learn-task" in line for line in alive(platform.processes())), "the stage to start")
    family, flow = platform.processes(), platform.flow_process()
    assert platform.worker is not None
    platform.worker.suspend()  # so that it sees nothing of the flow's end
    flow.kill()
    platform.worker.kill()
    platform.worker.wait()
    wait_for(lambda: not alive(family), "the end of all that it had started", 30)
    assert platform.state(run) == "RUNNING" and run in OpenRuns(address).by_flow_run(), "nobody could tell"
    platform.start_worker()

    seconds = wait_for(lambda: platform.state(run) == "CRASHED", "the heartbeat's automation", 240)
    wait_for(lambda: run not in OpenRuns(address).by_flow_run(), "gkd/tidy to tell MLflow", 240)
    print(f"marked Crashed {seconds:.0f} s after the kill")
    client = Tracking(settings, project).client
    left = client.search_runs(["1"], f"tags.`prefect.flow_run_id` = '{run}' and attributes.status != 'FINISHED'")
    assert {item.info.status for item in left} == {"FAILED"}
    tidied = platform.call("flow_runs/filter", {"deployments": {"name": {"any_": ["tidy"]}}})
    wait_for(lambda: {platform.state(item["id"]) for item in tidied} == {"COMPLETED"}, "tidy to end")
    assert len(tidied) == 1, "tidy's own end starts no other"


@pytest.mark.slow
def test_a_run_goes_on_while_the_server_is_started_anew(settings: Settings, platform: Platform, project: Path) -> None:
    run = platform.run("seed=2", "learn_task.end_to_end_updates=3000")
    wait_for(lambda: any("learn-task" in line for line in alive(platform.processes())), "the stage to start")
    port = platform.url.rpartition(":")[2]
    below = [process for process in psutil.Process().children(recursive=True) if process.cmdline()[-2:] == ["--port", port]]
    (server,) = [process for process in below if not process.children()]
    command, environment, folder = server.cmdline(), server.environ(), Path(server.cwd())
    server.kill()
    wait_for(lambda: not alive(below), "the server to be gone")
    with child_process(command, cwd=folder, env=environment, log=project / "server.log"):
        wait_for(lambda: _answers(platform), "the server to answer again")
        platform.wait(run, "COMPLETED")
        assert run not in OpenRuns(Tracking(settings, project).address).by_flow_run()
        platform.stop()


def _answers(platform: Platform) -> bool:
    try:
        platform.call("health")
    except OSError:
        return False
    return True
