"""The exporter's gauges, of a real MLflow store, and what is said where a service does not answer."""

from __future__ import annotations

import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from gkd_core.operations.metrics.exporter import PlatformCollector, Watched
from gkd_core.operations.metrics.gauges import GAUGES
from gkd_core.system.loopback import free_port
from gkd_core.tracking.steps import StepMetrics

PROMOTED = datetime(2026, 3, 1, tzinfo=UTC)
Sample = tuple[str, tuple[str, ...]]


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A store with a stage that runs, one that has ended, two matrices and a champion."""
    folder = tmp_path_factory.mktemp("mlflow")
    client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
    experiment = client.create_experiment("gkd", artifact_location=str(folder / "artifacts"))

    def run(kind: str, **tags: str) -> str:
        return str(client.create_run(experiment, tags={"kind": kind, **tags}).info.run_id)

    running = run("stage", stage="distill-source-gta5", source="gta5")
    client.log_metric(running, "progress/planned", 900)
    lines = [
        {"step": float(step), "time": time.time(), "loss": 1 / step, "images_per_second": 7.5, "waiting_share": 0.25}
        for step in (10, 20)
    ]
    StepMetrics(client, running)(lines)
    client.set_terminated(run("stage", stage="learn-task-gta5", source="gta5"), "KILLED")
    for mean, worst, domain in ((30.0, 10.0, "G2C/cityscapes"), (40.0, 20.0, "C2A/night")):
        finished = run("pipeline", worst_domain=domain)
        client.log_metric(finished, "miou/mean_targets", mean)
        client.log_metric(finished, "miou/worst_domain", worst)
        client.set_terminated(finished)
        time.sleep(0.01)
    client.set_terminated(run("pipeline"))  # one without scores, and the newest
    client.create_registered_model("gkd-student-gta5")
    client.create_model_version("gkd-student-gta5", str(folder), running)
    client.create_model_version("gkd-student-gta5", str(folder), running)
    client.set_registered_model_alias("gkd-student-gta5", "champion", "2")
    client.set_model_version_tag("gkd-student-gta5", "2", "promoted_at", PROMOTED.isoformat())
    client.set_model_version_tag("gkd-student-gta5", "2", "miou.targets", "38.50")
    client.create_registered_model("gkd-student-potsdam")  # without a champion
    return f"sqlite:///{folder}/mlflow.db"


def scrape(address: str, **environment: str) -> dict[Sample, float]:
    collector = PlatformCollector(Watched(address, "gkd", "gkd-student", "gkd"), environment)
    found: dict[Sample, float] = {}
    for family in collector.collect():
        for sample in family.samples:
            key = (sample.name, tuple(value for name, value in sample.labels.items() if name != "run_id"))
            assert key not in found
            found[key] = sample.value
    return found


def test_stages_that_run_the_newest_matrix_and_champions(address: str) -> None:
    found = scrape(address)
    began = found.pop(("gkd_stage_started_timestamp_seconds", ("distill-source-gta5", "gta5")))
    ended = found.pop(("gkd_matrix_timestamp_seconds", ()))
    assert 0 < time.time() - began < 200 and 0 < time.time() - ended < 200
    stage = ("distill-source-gta5", "gta5")
    assert found == {
        ("gkd_up", ("mlflow",)): 1,
        ("gkd_stage_updates", stage): 20,
        ("gkd_stage_updates_planned", stage): 900,
        ("gkd_stage_images_per_second", stage): 7.5,
        ("gkd_stage_loss", stage): 0.05,
        ("gkd_stage_waiting_share", stage): 0.25,
        ("gkd_matrix_mean_targets_percent", ()): 40,
        ("gkd_matrix_worst_domain_percent", ("C2A/night",)): 20,
        ("gkd_champion_promoted_timestamp_seconds", ("gkd-student-gta5", "2")): PROMOTED.timestamp(),
        ("gkd_champion_mean_targets_percent", ("gkd-student-gta5", "2")): 38.5,
    }


def test_a_store_without_the_experiment_has_nothing_to_tell(tmp_path: Path) -> None:
    assert scrape(f"sqlite:///{tmp_path}/new.db") == {("gkd_up", ("mlflow",)): 1}


def test_a_service_that_does_not_answer_is_down_and_does_not_hide_the_other(
    address: str, caplog: pytest.LogCaptureFixture
) -> None:
    nobody = f"http://127.0.0.1:{free_port()}/api"
    found = scrape(address, PREFECT_API_URL=nobody, PREFECT_API_AUTH_STRING="gkd:canary")
    assert found["gkd_up", ("prefect",)] == 0
    assert found["gkd_up", ("mlflow",)] == 1
    assert not [name for name, _ in found if name.startswith("gkd_flow")]
    assert "prefect did not answer a scrape: ConnectionError" in caplog.text
    assert "canary" not in caplog.text


def test_an_mlflow_that_is_away_does_not_hold_a_scrape() -> None:
    began = time.monotonic()
    assert scrape(f"http://127.0.0.1:{free_port()}") == {("gkd_up", ("mlflow",)): 0}
    assert time.monotonic() - began < 20


def test_every_gauge_has_a_line_in_the_docs() -> None:
    text = (Path(__file__).parents[2] / "docs" / "monitoring.md").read_text(encoding="utf-8")
    assert not [name for name in GAUGES if f"`{name}`" not in text]


def test_it_runs_where_torch_is_not_installed() -> None:
    code = """
import sys
sys.modules.update({name: None for name in ("torch", "timm", "transformers", "ray", "dvc")})
import gkd_core.operations.metrics.exporter, gkd_core.operations.backup.make, gkd_core.operations.backup.restore
import gkd_core.operations.backup.retention, gkd_core.cli.app
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr[-1000:]
