"""A cluster's servers as the manifests start them: who is let in, and what they tell."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from gkd_core.errors import PlatformError
from gkd_core.operations.bootstrap.tracking_user import ensure_tracking_user, ensure_users
from tests.integration.manifest_servers import MLFLOW, PREFECT, Cluster, confined, manifest_servers

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with manifest_servers(tmp_path_factory.mktemp("cluster")) as cluster:
        yield cluster


def test_the_servers_ran_where_nothing_else_can_be_written(tmp_path: Path) -> None:
    """Beside the fixture, which starts both in such a place: that the place is one."""
    prefix = confined(tmp_path)
    if not prefix:
        pytest.skip("no right to make a mount namespace: the servers of these tests could write anywhere")
    for path, code in ((tmp_path / "file", 0), (Path(tempfile.gettempdir()) / f"gkd-{os.getpid()}", 1)):
        done = subprocess.run([*prefix, sys.executable, "-c", f"open({str(path)!r}, 'w')"], capture_output=True, check=False)
        assert done.returncode == code, path
    status = subprocess.run([*prefix, "cat", "/proc/self/status"], capture_output=True, text=True, check=True).stdout
    assert re.search(r"^CapEff:\s*0+$", status, re.MULTILINE)


def test_prefect_lets_nobody_in_without_the_auth_string(cluster: Cluster) -> None:
    variables = cluster.variables("Deployment/prefect-worker", "prefect-worker")
    url = f"{cluster.prefect}/api/work_pools/filter"
    assert requests.post(url, json={}, timeout=30).status_code == 401
    assert requests.post(url, json={}, auth=("gkd", "wrong"), timeout=30).status_code == 401
    user, _, password = variables["PREFECT_API_AUTH_STRING"].partition(":")
    answer = requests.post(url, json={}, auth=(user, password), timeout=30)
    assert (answer.status_code, answer.json()) == (200, [])


def test_mlflow_lets_nobody_in_without_a_password_and_its_worker_is_no_administrator(cluster: Cluster) -> None:
    search = f"{cluster.mlflow}/api/2.0/mlflow/experiments/search?max_results=5"
    assert requests.get(search, timeout=60).status_code == 401
    variables = {"MLFLOW_TRACKING_URI": cluster.mlflow, "MLFLOW_AUTH_ADMIN_USERNAME": "admin"}
    variables |= cluster.variables("Job/deploy", "deploy")
    assert [ensure_tracking_user(variables).state for _ in range(2)] == ["made", "already so"]
    worker = (variables["MLFLOW_TRACKING_USERNAME"], variables["MLFLOW_TRACKING_PASSWORD"])
    assert requests.get(search, auth=worker, timeout=60).status_code == 200
    users = f"{cluster.mlflow}/api/2.0/mlflow/users"
    refused = requests.post(f"{users}/create", auth=worker, json={"username": "x", "password": "long enough 1"}, timeout=60)
    assert refused.status_code == 403
    rotated = variables | {"MLFLOW_TRACKING_PASSWORD": "another-long-password"}
    assert ensure_tracking_user(rotated).state == "set"
    assert requests.get(search, auth=worker, timeout=60).status_code == 401
    assert ensure_tracking_user(variables).state == "set"
    with pytest.raises(PlatformError, match="user admin: is an administrator"):
        ensure_tracking_user(variables | {"MLFLOW_TRACKING_USERNAME": "admin"})
    with pytest.raises(PlatformError, match="answered 401; check MLFLOW_AUTH_ADMIN_USERNAME"):
        ensure_tracking_user(variables | {"MLFLOW_AUTH_ADMIN_PASSWORD": "wrong"})


def test_metrics_are_scraped_by_keys_that_alter_nothing(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    administrator = {"MLFLOW_AUTH_ADMIN_USERNAME": "admin", "MLFLOW_AUTH_ADMIN_PASSWORD": cluster.secret("mlflow-admin")}
    deploy = cluster.variables("Job/deploy", "deploy")
    list(ensure_users({"MLFLOW_TRACKING_URI": cluster.mlflow} | administrator | deploy))
    keys = cluster.variables("Deployment/metrics", "metrics")
    prefect, mlflow = (f"{cluster.prefect}/api", f"{cluster.mlflow}/api/2.0/mlflow")
    owner, reader = (pair(each["PREFECT_API_AUTH_STRING"]) for each in (deploy, keys))
    worker, metrics = ((each["MLFLOW_TRACKING_USERNAME"], each["MLFLOW_TRACKING_PASSWORD"]) for each in (deploy, keys))

    made = requests.post(f"{prefect}/work_pools/", json={"name": "watched", "type": "process"}, auth=owner, timeout=60)
    assert made.status_code == 201
    assert requests.get(f"{prefect}/work_pools/watched", auth=reader, timeout=60).json()["name"] == "watched"
    for method, path in (("DELETE", "work_pools/watched"), ("POST", "work_pools/"), ("POST", "block_documents/filter")):
        assert requests.request(method, f"{prefect}/{path}", json={}, auth=reader, timeout=60).status_code == 403

    body = requests.post(f"{mlflow}/experiments/create", json={"name": "watched"}, auth=worker, timeout=60).json()
    run = requests.post(f"{mlflow}/runs/create", json=body, auth=worker, timeout=60).json()["run"]["info"]["run_id"]
    assert requests.get(f"{mlflow}/runs/get?run_id={run}", auth=metrics, timeout=60).status_code == 200
    for path, change in (
        ("runs/log-metric", {"run_id": run, "key": "a", "value": 1, "timestamp": 1}),
        ("runs/delete", {"run_id": run}),
        ("experiments/delete", body),
        ("users/create", {"username": "x", "password": "long enough 1"}),
    ):
        assert requests.post(f"{mlflow}/{path}", json=change, auth=metrics, timeout=60).status_code == 403, path

    for name in ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"):
        monkeypatch.setenv(name, keys[name])
    from gkd_core.operations.metrics.exporter import PlatformCollector, Watched

    watched = Watched(cluster.mlflow, "watched", "gkd-student", "watched")
    collector = PlatformCollector(watched, keys | {"PREFECT_API_URL": prefect})
    found = {(item.name, *item.labels.values()): item.value for family in collector.collect() for item in family.samples}
    assert found["gkd_up", "mlflow"] == found["gkd_up", "prefect"] == 1
    assert found["gkd_work_pool_paused", "watched"] == 0


def pair(key: str) -> tuple[str, str]:
    user, _, password = key.partition(":")
    return user, password


def test_the_worker_logs_an_artifact_by_way_of_the_server(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    variables: dict[str, Any] = {"MLFLOW_TRACKING_URI": cluster.mlflow}
    variables |= cluster.variables("Deployment/prefect-worker", "prefect-worker")
    ensure_tracking_user(
        variables | {"MLFLOW_AUTH_ADMIN_USERNAME": "admin", "MLFLOW_AUTH_ADMIN_PASSWORD": cluster.secret("mlflow-admin")}
    )
    for name in ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"):
        monkeypatch.setenv(name, variables[name])
    from mlflow.tracking import MlflowClient

    client = MlflowClient(cluster.mlflow)
    experiment = client.create_experiment("gkd")
    run = client.create_run(experiment).info
    assert run.artifact_uri.startswith("mlflow-artifacts:")
    (tmp_path / "note.txt").write_text("kept")
    client.log_artifact(run.run_id, str(tmp_path / "note.txt"))
    assert [item.path for item in client.list_artifacts(run.run_id)] == ["note.txt"]


def test_another_host_name_is_refused(cluster: Cluster) -> None:
    search = f"{cluster.mlflow}/api/2.0/mlflow/experiments/search?max_results=5"
    admin = ("admin", cluster.secret("mlflow-admin"))
    assert requests.get(search, auth=admin, headers={"Host": "mlflow:5000"}, timeout=60).status_code == 200
    assert requests.get(search, auth=admin, headers={"Host": "evil.example"}, timeout=60).status_code == 403


def test_no_secret_is_in_a_log(cluster: Cluster) -> None:
    logs = "".join(cluster.log(owner).read_text() for owner in (PREFECT, MLFLOW))
    assert "Uvicorn running" in logs
    for path in (cluster.folder / "secrets").iterdir():
        for secret in re.findall(r"[0-9a-f]{64}", path.read_text()):
            assert secret not in logs, path.name
