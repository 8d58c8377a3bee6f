"""A cluster of several hosts on this machine: what the manifests start, two Ray nodes, a worker, and a project.

A module may put other hosts in the place of those on loopback, by a fixture `places` of its own.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flows.server import PrefectServer
from gkd_core.settings import Settings, dump_settings, settings_from_tree
from tests.infra.kubernetes import REPOSITORY
from tests.integration.cluster.stack import EVERY, UPDATES, End, Stack
from tests.integration.hosts import NODES, ON_LOOPBACK, WORKER, Hosts
from tests.integration.kills.orchestration import Platform, link_project
from tests.integration.manifest_servers import Cluster, manifest_servers
from tests.integration.ray_hosts import RayHosts, ray_hosts


@pytest.fixture(scope="module")
def places() -> Hosts:
    return ON_LOOPBACK


@pytest.fixture(scope="module")
def servers(places: Hosts, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with manifest_servers(tmp_path_factory.mktemp("servers"), places) as servers:
        yield servers


@pytest.fixture(scope="module")
def hosts(places: Hosts, servers: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RayHosts]:
    folder, store = tmp_path_factory.mktemp("ray"), _store(servers, "trainer")
    with ray_hosts(folder, store, nodes=len(NODES), hosts=places) as hosts:
        yield hosts


@pytest.fixture(scope="module")
def settings(hosts: RayHosts, tiny_tree: dict[str, Any]) -> Settings:
    """One source, stage one on the cluster, a checkpoint now and then, and a line of metrics for each update."""

    def lengths(stage: str) -> dict[str, Any]:
        return {"updates": UPDATES[stage], "checkpoint_every": EVERY[stage], "log_every": 1}

    tree = tiny_tree | {
        "data": tiny_tree["data"] | {"benchmarks": ["P2R"]},
        **{key: tiny_tree[key] | lengths(key.replace("_", "-")) for key in ("distill_proxy", "distill_source", "learn_task")},
        "compute": tiny_tree["compute"]
        | {"workers": len(NODES), "address": hosts.address, "storage": "s3://gkd-data/scratch", "max_failures": 3},
    }
    tree["distill_proxy"] |= {"warm_start": {"updates": 0}}
    return settings_from_tree(tree)


@pytest.fixture(scope="module")
def stack(
    places: Hosts, servers: Cluster, hosts: RayHosts, settings: Settings, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stack]:
    """All of it, set up by infra/bootstrap.sh, with a worker."""
    project = tmp_path_factory.mktemp("project")
    link_project(project)
    (project / "params.yaml").write_text(dump_settings(settings), encoding="utf-8")
    environment = {
        "PREFECT_API_URL": f"{servers.prefect}/api",
        "PREFECT_HOME": str(project / "prefect-home"),
        "MLFLOW_TRACKING_URI": servers.mlflow,
        **servers.variables("Deployment/prefect-worker", "prefect-worker"),
        **_store(servers, "worker"),
        **hosts.access,
    }
    _set_up(servers, project, environment)
    with pytest.MonkeyPatch.context() as patch:
        for name in ("MLFLOW_TRACKING_URI", "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"):
            patch.setenv(name, environment[name])  # for the test's own questions
        key_file = servers.folder / "secrets" / "prefect-auth"
        server = PrefectServer(servers.prefect, environment, key_file, lambda: False, project / "prefect.log")
        platform = Platform(project, server, places[WORKER].prefix)
        platform.start_worker()
        yield Stack(servers, hosts, platform, settings)
        platform.stop()


@pytest.fixture(scope="module")
def undisturbed(stack: Stack) -> End:
    """The end of a run by name that nothing disturbed."""
    stack.forget_all("undisturbed")
    command = [str(Path(sys.executable).with_name("prefect")), "deployment", "run", "gkd/full-pipeline", "--watch"]
    platform = stack.platform
    done = subprocess.run(command, cwd=platform.project, env=platform.environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr + (platform.project / "worker.log").read_text()
    return stack.end()


def _store(servers: Cluster, role: str) -> dict[str, str]:
    credentials = servers.folder / "secrets" / f"store-{role}"
    return {
        "AWS_ENDPOINT_URL": servers.store.url,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_SHARED_CREDENTIALS_FILE": str(credentials),
    }


def _set_up(servers: Cluster, project: Path, environment: dict[str, str]) -> None:
    """As the jobs `bootstrap` and `deploy` do."""
    administrator = {"MLFLOW_AUTH_ADMIN_USERNAME": "admin", "MLFLOW_AUTH_ADMIN_PASSWORD": servers.secret("mlflow-admin")}
    everything = {**os.environ, **environment, **administrator, **_store(servers, "bootstrap"), "PWD": str(project)}
    everything["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # the script calls gkd and prefect
    script = REPOSITORY / "infra/bootstrap.sh"
    done = subprocess.run(["sh", script], cwd=project, env=everything, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
