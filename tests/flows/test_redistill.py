"""What prefect.yaml promises about redistill, and what a look at the registry costs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from prefect.client.schemas.schedules import CronSchedule
from prefect.utilities.importtools import import_object

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def deployment() -> dict[str, Any]:
    tree = yaml.safe_load((REPOSITORY / "prefect.yaml").read_text(encoding="utf-8"))
    (found,) = [item for item in tree["deployments"] if item["name"] == "redistill"]
    return dict(found)


def test_it_runs_by_the_clock_of_a_zone_and_never_beside_itself(deployment: dict[str, Any]) -> None:
    path, _, function = deployment["entrypoint"].partition(":")
    flow: Any = import_object(f"{REPOSITORY / path}:{function}")
    assert flow.name == "gkd"
    assert flow.parameters.properties["seeds"]["default"] == [0]
    (schedule,) = deployment["schedules"]
    assert schedule.keys() == {"slug", "cron", "timezone", "active"}
    for zone in (schedule["timezone"], "Europe/Berlin"):
        assert CronSchedule(cron=schedule["cron"], timezone=zone).timezone == zone
    assert deployment["concurrency_limit"] == {"limit": 1, "collision_strategy": "CANCEL_NEW"}
    assert deployment["enforce_parameter_schema"] is True


def test_a_look_loads_no_library_that_only_work_needs() -> None:
    code = "import sys, flows.redistill; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, timeout=200, check=True)
    assert {"torch", "ray", "matplotlib", "dvc"}.isdisjoint(done.stdout.split())
