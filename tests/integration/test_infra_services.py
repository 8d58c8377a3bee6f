"""A cluster's servers as the manifests start them: arguments, variables and secrets, on loopback, with a real database."""

from __future__ import annotations

import logging
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests
from moto.server import ThreadedMotoServer

from gkd_core.adapters.child import child_process
from gkd_core.adapters.infra.tracking_user import ensure_tracking_user
from gkd_core.errors import PlatformError
from tests.infra.kubernetes import MANIFESTS, REPOSITORY, Manifests, render
from tests.infra.pod_policy import mounted_variables
from tests.integration.infra_postgres import ADMINISTRATOR, postgres

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(600)]

START_SECONDS = 240
# As a pod: nothing can be written but the test's own folder, and no capability is left. (The user stays ours: it may have to
# read a Python that lies in its home.)
CONFINED = """
mount --bind "$0" "$0" && mount -o remount,bind,ro / &&
exec setpriv --no-new-privs --bounding-set=-all --inh-caps=-all "$@"
"""
# Names of the Secrets' keys, and the files that infra/secrets.sh makes.
FILES = {
    ("prefect-auth", "auth"): "prefect-auth", ("database-admin", "password"): "database-admin",
    ("database-prefect", "password"): "database-prefect", ("database-mlflow", "password"): "database-mlflow",
    ("mlflow-admin", "password"): "mlflow-admin", ("mlflow-admin", "session"): "mlflow-session",
    ("mlflow-worker", "username"): "mlflow-worker-name", ("mlflow-worker", "password"): "mlflow-worker",
}  # fmt: skip


@dataclass(frozen=True)
class Cluster:
    """What runs, and the secrets that it runs with."""

    folder: Path
    prefect: str
    mlflow: str
    manifests: Manifests

    def secret(self, name: str) -> str:
        return (self.folder / "secrets" / name).read_text().strip()

    def variables(self, owner: str, container: str) -> dict[str, str]:
        """Variables that a pod's entry point makes of its secrets."""
        (pod,) = [pod for pod in self.manifests.pods() if pod.owner == owner]
        (found,) = [item for item in pod.containers if item["name"] == container]
        return {name: self.secret(FILES[key]) for name, key in mounted_variables(found, pod).items()}

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    folder = tmp_path_factory.mktemp("cluster")
    subprocess.run([REPOSITORY / "infra/secrets.sh", folder / "secrets"], check=True, capture_output=True)
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    store = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    store.start()
    host, port = store.get_host_and_port()
    manifests = render(MANIFESTS / "overlays" / "dev")
    found = Cluster(folder, f"http://127.0.0.1:{free_port()}", f"http://127.0.0.1:{free_port()}", manifests)
    with postgres() as database, ExitStack() as stack:
        here = {
            "PGHOST": "127.0.0.1", "PGPORT": str(database.port), "AWS_ENDPOINT_URL": f"http://{host}:{port}",
            "MLFLOW_AUTH_CONFIG_PATH": str(folder / "basic_auth.ini"), "PREFECT_UI_STATIC_DIRECTORY": str(folder / "ui"),
        }  # fmt: skip
        config = manifests.named("ConfigMap", "mlflow-auth")["data"]["basic_auth.ini"]
        (folder / "basic_auth.ini").write_text(config)
        bootstrap = start(found, "Job/bootstrap", here | {"PGPASSWORD": database.password})
        done = subprocess.run(bootstrap.command, env=bootstrap.environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        for owner, url in (("Deployment/prefect-server", found.prefect), ("Deployment/mlflow", found.mlflow)):
            server = start(found, owner, here, url)
            log = folder / f"{owner.partition('/')[2]}.log"
            stack.enter_context(child_process(server.command, cwd=folder, env=server.environment, log=log))
        wait(f"{found.prefect}/api/ready", folder / "prefect-server.log")
        wait(f"{found.mlflow}/health", folder / "mlflow.log")
        yield found
    store.stop()


@dataclass(frozen=True)
class Command:
    command: list[str]
    environment: dict[str, str]


def start(cluster: Cluster, owner: str, here: dict[str, str], url: str = "") -> Command:
    """A pod's first container as a command of this machine: the entry point, its secrets, its arguments, on loopback."""
    (pod,) = [pod for pod in cluster.manifests.pods() if pod.owner == owner]
    container = pod.spec["containers"][0]
    mounted = cluster.folder / owner.replace("/", "-")
    mounted.mkdir()
    for name, value in cluster.variables(owner, container["name"]).items():
        (mounted / name).write_text(here.pop(name, value))
    (cluster.folder / "home").mkdir(exist_ok=True)
    credentials = cluster.folder / "secrets" / ("store-bootstrap" if "bootstrap" in owner else "store-tracking")
    environment = cluster.manifests.environment(container)
    environment |= here | {"AWS_SHARED_CREDENTIALS_FILE": str(credentials), "PREFECT_HOME": str(cluster.folder / "home")}
    environment = {
        name: re.sub(r"\$\((\w+)\)", lambda match: environment[match[1]], value) for name, value in environment.items()
    }
    environment = {name: value.replace("//postgres@", f"//{ADMINISTRATOR}@") for name, value in environment.items()}
    arguments = container["args"]
    if url:
        arguments = ["127.0.0.1" if item == "0.0.0.0" else item for item in arguments]
        arguments[arguments.index("--port") + 1] = url.rpartition(":")[2]
    if arguments[0] == "gkd":
        arguments = [sys.executable, "-c", "from gkd_core.cli import main; main()", *arguments[1:]]
    script = REPOSITORY / "infra/images/entrypoint.sh"
    environment |= {"SECRET_ENVIRONMENT": str(mounted), "DO_NOT_TRACK": "1", "TMPDIR": str(cluster.folder / "home")}
    environment |= {"HOME": str(cluster.folder / "home"), "PYTHONDONTWRITEBYTECODE": "1"}
    return Command([*confined(cluster.folder), "sh", str(script), *arguments], {**os.environ, **environment})


def confined(folder: Path) -> list[str]:
    """What makes a command's root read-only but for a folder; nothing where we may not do that."""
    prefix = ["unshare", "--mount", "--propagation=private", "sh", "-c", CONFINED, str(folder)]
    allowed = subprocess.run([*prefix, "true"], capture_output=True, check=False).returncode == 0
    return prefix if allowed else []


def wait(url: str, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        try:
            if requests.get(url, timeout=10).ok:
                return
        except requests.RequestException:
            pass
        time.sleep(0.5)
    raise AssertionError(f"{url}: no answer\n{log.read_text()[-3000:]}")


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
    logs = cluster.log("prefect-server") + cluster.log("mlflow")
    assert "Uvicorn running" in logs
    for path in (cluster.folder / "secrets").iterdir():
        for secret in re.findall(r"[0-9a-f]{64}", path.read_text()):
            assert secret not in logs, path.name
