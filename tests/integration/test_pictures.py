"""Pictures of a flow run: drawn once, restored in the next run, in MLflow after both."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from gkd_core.records import PictureList
from gkd_core.tracking.flow_runs import Tracking

REPOSITORY = Path(__file__).parents[2]
SOURCE = "potsdam-rgb"
pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(1300)]


def _flow(project: Path) -> str:
    command = [sys.executable, "-m", "flows.local", "full-pipeline", "--set", "illustrate.images=1"]
    paths = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "PYTHONPATH": str(REPOSITORY), "COLUMNS": "300"}
    done = subprocess.run(
        command, cwd=project, env={**os.environ, **paths}, capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_pictures_are_drawn_once_and_logged_each_time(project: Path, tracking: Tracking, tmp_path: Path) -> None:
    assert f"illustrate-{SOURCE}: done" in _flow(project)
    assert f"illustrate-{SOURCE}: restored" in _flow(project)
    runs = tracking.client.search_runs([tracking.experiment], order_by=["attributes.start_time ASC"])
    parents = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    drawn = [run for run in runs if run.data.tags.get("stage") == f"illustrate-{SOURCE}"]
    assert len(parents) == 2
    assert [run.data.tags["mlflow.parentRunId"] for run in drawn] == [parents[0].info.run_id]
    domains = {item.dataset.name for item in drawn[0].inputs.dataset_inputs}
    assert domains == {"potsdam-rgb/val", "potsdam-irrg/val", "vaihingen-irrg/val"}
    for parent in parents:
        folder = Path(tracking.client.download_artifacts(parent.info.run_id, f"pictures/{SOURCE}", str(tmp_path)))
        pictures = PictureList.read(folder / "pictures.json").pictures
        assert {picture.domain for picture in pictures} == domains
        assert {path.name for path in folder.iterdir()} == {*(picture.file for picture in pictures), "pictures.json"}
