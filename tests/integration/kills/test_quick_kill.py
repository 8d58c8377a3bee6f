"""The quick representative of the kills: a flow's process struck down in a training stage, then run again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from gkd_core.adapters.mlflow_open_runs import OpenRuns
from gkd_core.adapters.mlflow_tracking import Tracking
from gkd_core.settings import Settings, settings_from_tree
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


def test_flow_process_struck_down_then_run_again(settings: Settings, platform: Platform, project: Path) -> None:
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
