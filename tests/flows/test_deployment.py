"""What prefect.yaml promises about the flows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from prefect.utilities.importtools import import_object

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def deployment() -> dict[str, Any]:
    tree = yaml.safe_load((REPOSITORY / "prefect.yaml").read_text(encoding="utf-8"))
    (found,) = [item for item in tree["deployments"] if item["name"] == "full-pipeline"]
    return dict(found)


def test_entrypoint_is_the_flow_gkd(deployment: dict[str, Any]) -> None:
    path, _, function = deployment["entrypoint"].partition(":")
    flow: Any = import_object(f"{REPOSITORY / path}:{function}")
    assert flow.name == "gkd"
    assert set(flow.parameters.properties) == {"profile", "overrides"}
    assert flow.parameters.properties["overrides"]["default"] == []


def test_runs_wait_for_each_other_and_bad_parameters_are_refused(deployment: dict[str, Any]) -> None:
    assert deployment["enforce_parameter_schema"] is True
    assert deployment["concurrency_limit"] == {"limit": 1, "collision_strategy": "ENQUEUE"}


def test_no_machines_path_is_written_down() -> None:
    assert "/" not in (REPOSITORY / "prefect.yaml").read_text(encoding="utf-8").replace("gkd/full-pipeline", "").replace(
        "flows/", ""
    )


def test_gkd_core_knows_nothing_of_prefect_or_the_flows() -> None:
    for file in (REPOSITORY / "gkd_core").rglob("*.py"):
        text = file.read_text(encoding="utf-8")
        for word in ("import prefect", "from prefect", "import flows", "from flows"):
            assert word not in text, f"{file}: {word}"
