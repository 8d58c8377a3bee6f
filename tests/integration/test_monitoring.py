"""What the endpoints that alerts ask really expose: the exporter over MLflow and Prefect, and Ray's nodes."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient
from prometheus_client.parser import text_string_to_metric_families

from flows.server import PrefectServer
from gkd_core.cluster.own_cluster import plain_python
from gkd_core.operations.metrics.gauges import GAUGES
from gkd_core.storage.mlflow_store import STORE, local_artifacts, local_database
from gkd_core.system.child_process import child_process
from gkd_core.system.loopback import LOOPBACK, free_port
from tests.infra.test_monitoring import rules
from tests.integration.conftest import Prefect

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]


def scrape(
    port: int, wanted: Callable[[set[str]], bool] = bool, seconds: float = 90.0
) -> dict[str, list[tuple[dict[str, str], float]]]:
    """Samples by name, once they are as wanted."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            with urllib.request.urlopen(f"http://{LOOPBACK}:{port}/metrics", timeout=30) as answer:
                text = answer.read().decode()
        except OSError:
            text = ""
        found: dict[str, list[tuple[dict[str, str], float]]] = {}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                found.setdefault(sample.name, []).append((sample.labels, sample.value))
        if wanted(set(found)):
            return found
        assert time.monotonic() < deadline, text[-2000:]
        time.sleep(0.5)


@pytest.fixture(scope="module")
def remembered(project: Path) -> None:
    """In the project's MLflow: a stage that runs, a matrix and a champion."""
    (project / STORE).mkdir(parents=True, exist_ok=True)
    client = MlflowClient(local_database(project))
    experiment = client.create_experiment("gkd", artifact_location=local_artifacts(project))
    running = client.create_run(experiment, tags={"kind": "stage", "stage": "distill-proxy"}).info.run_id
    for name in ("progress/updates", "progress/planned", "images_per_second", "loss", "waiting_share"):
        client.log_metric(running, name, 1.0)
    matrix = client.create_run(experiment, tags={"kind": "pipeline"}).info.run_id
    for name in ("miou/mean_targets", "miou/worst_domain"):
        client.log_metric(matrix, name, 30.0)
    client.set_terminated(matrix)
    client.create_registered_model("gkd-student-gta5")
    client.create_model_version("gkd-student-gta5", local_artifacts(project), matrix)
    client.set_model_version_tag("gkd-student-gta5", "1", "miou.targets", "30")
    client.set_registered_model_alias("gkd-student-gta5", "champion", "1")


@pytest.fixture(scope="module")
def exporter(project: Path, server: PrefectServer, prefect: Prefect, remembered: None) -> Iterator[int]:
    """Port of `gkd metrics serve`, run in the project."""
    assert prefect("work-pool", "create", "gkd", "--type", "process").returncode == 0
    port = free_port()
    with child_process(["gkd", "metrics", "serve", "--port", str(port)], cwd=project, env=server.environment):
        scrape(port)
        yield port


@pytest.fixture(scope="module")
def ray_node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """Port of a Ray head's metrics, begun as infra/compose begins it."""
    port, folder = free_port(), Path("/tmp") / f"gkd-metrics-{os.getpid()}"  # Ray's sockets want a short path
    python = plain_python(tmp_path_factory.mktemp("python"))
    command = [python, str(Path(python).with_name("ray")), "start", "--head", "--block", f"--port={free_port()}"]
    command += [f"--dashboard-port={free_port()}", "--num-cpus=0"]
    command += [f"--metrics-export-port={port}", f"--temp-dir={folder}", "--disable-usage-stats", f"--node-ip-address={LOOPBACK}"]
    with child_process(command, env={"RAY_USAGE_STATS_ENABLED": "0"}, log=tmp_path_factory.mktemp("ray") / "log"):
        yield port
    subprocess.run(["rm", "-rf", str(folder)], check=True)


def test_the_exporter_has_every_gauge(exporter: int) -> None:
    assert set(scrape(exporter)) == set(GAUGES)


def test_work_pool_and_runs_are_as_prefect_has_them(exporter: int, prefect: Prefect) -> None:
    found = scrape(exporter)
    assert found["gkd_work_pool_paused"] == [({"pool": "gkd"}, 0)]
    assert found["gkd_workers_online"] == [({"pool": "gkd"}, 0)]
    assert {labels["state"]: value for labels, value in found["gkd_flow_runs"]}["Running"] == 0
    # As docs/upgrading.md drains the pool.
    assert prefect("work-pool", "pause", "gkd").returncode == 0
    assert scrape(exporter)["gkd_work_pool_paused"] == [({"pool": "gkd"}, 1)]
    assert prefect("work-pool", "resume", "gkd").returncode == 0
    assert scrape(exporter)["gkd_work_pool_paused"] == [({"pool": "gkd"}, 0)]


def test_alerts_ask_for_metrics_that_are_there(exporter: int, ray_node: int) -> None:
    exposed = set(scrape(exporter)) | set(scrape(ray_node, lambda names: "ray_node_disk_free" in names))
    for rule in rules():
        words = re.sub(r"\{[^}]*\}|\[\w+\]", "", rule["expr"])
        named = set(re.findall(r"\b(?:gkd|ray)_\w+", words))
        assert named, rule["expr"]
        assert named <= exposed, named - exposed


def test_ray_writes_the_file_by_which_prometheus_finds_its_nodes(ray_node: int) -> None:
    scrape(ray_node)
    file = Path("/tmp") / f"gkd-metrics-{os.getpid()}" / "prom_metrics_service_discovery.json"
    deadline, found = time.monotonic() + 90, ""
    while f":{ray_node}" not in found:  # Ray's own services are in it before the first node is
        assert time.monotonic() < deadline, found
        time.sleep(0.5)
        found = file.read_text() if file.exists() else ""


def test_a_port_that_is_in_use_is_one_line(exporter: int, project: Path) -> None:
    command = [str(Path(sys.executable).with_name("gkd")), "metrics", "serve", "--port", str(exporter)]
    done = subprocess.run(command, cwd=project, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 2
    assert f"port {exporter}: Address already in use; choose another by --port" in done.stderr
