"""What the translator makes of a manifest, without an engine."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from tests.containers.kuberay import ray_pods
from tests.containers.pods import Pod, Volumes, command, cores, environment, expanded, options, pod_of, port, quantity, secrets_of
from tests.infra.kubernetes import MANIFESTS, Manifests, render


@pytest.fixture(scope="module")
def manifests() -> Manifests:
    return render(MANIFESTS / "overlays" / "dev")


def pod(manifests: Manifests, owner: str) -> Pod:
    (found,) = [pod_of(manifests, item) for item in manifests.pods() if item.owner == owner]
    return found


def test_a_container_has_the_options_that_its_manifest_says(manifests: Manifests) -> None:
    metrics = pod(manifests, "Deployment/metrics")
    (container,) = metrics.spec["containers"]
    mounts = {
        "environment": ["type=bind", "source=/e", "readonly"],
        "home": ["type=bind", "source=/h"],
        "tmp": ["type=bind", "source=/t"],
    }
    variables = environment(container, manifests, {})
    assert options(container, metrics, mounts, variables, most_cores=8) == [
        "--user=10001:10001", "--group-add=10001", "--read-only", "--security-opt=no-new-privileges", "--cap-drop=ALL",
        f"--memory={512 * 2**20}", "--cpus=1.0",
        "--mount=type=bind,source=/e,readonly,target=/run/environment",
        "--mount=type=bind,source=/h,target=/home/gkd",
        "--mount=type=bind,source=/t,target=/tmp",
        "--env=PREFECT_API_URL=http://prefect-server:4200/api", "--env=PREFECT_FLOWS_HEARTBEAT_FREQUENCY=30",
        "--env=MLFLOW_TRACKING_URI=http://mlflow:5000", "--env=PREFECT_HOME=/home/gkd/prefect",
    ]  # fmt: skip
    assert command(container, variables) == ([], ["gkd", "metrics", "serve", "--host", "0.0.0.0", "--port", "9464"])
    assert port(container, {"port": "metrics"}) == port(container, {"port": 9464}) == 9464


def test_a_limit_is_not_above_what_the_machine_has(manifests: Manifests) -> None:
    metrics = pod(manifests, "Deployment/metrics")
    (container,) = metrics.spec["containers"]
    more = container | {"resources": {"limits": {"cpu": "2500m", "memory": "1Gi"}}, "volumeMounts": []}
    assert [f"--cpus={number}" in options(more, metrics, {}, {}, most) for number, most in ((2, 2), (2.5, 3))] == [True, True]


def test_a_command_of_the_manifest_takes_the_place_of_the_images(manifests: Manifests) -> None:
    (store,) = pod(manifests, "StatefulSet/store").spec["containers"]
    entry, words = command(store, {})
    assert entry == ["--entrypoint=/usr/bin/weed"]
    assert words[:2] == ["server", "-dir=/data"]


def test_variables_stand_for_earlier_ones(manifests: Manifests) -> None:
    (server,) = pod(manifests, "Deployment/prefect-server").spec["containers"]
    found = environment(server, manifests, {})
    assert found["PREFECT_API_DATABASE_CONNECTION_URL"] == "postgresql+asyncpg://gkd_prefect@postgres:5432/gkd_prefect"
    assert expanded("$(A)-$$(A)-$(B)", {"A": "1"}) == "1-$(A)-$(B)"


@pytest.mark.skipif(os.geteuid() != 0, reason="files of other users are made")
def test_volumes_have_the_modes_and_the_group_of_the_pod(manifests: Manifests, tmp_path: Path) -> None:
    mlflow = pod(manifests, "Deployment/mlflow")
    secrets = {
        name: dict.fromkeys(("password", "session", "credentials"), b"word")
        for name in ("mlflow-admin", "database-mlflow", "store-tracking")
    }
    mounts = Volumes(tmp_path / "pod", tmp_path / "claims", manifests, secrets).lay_out(mlflow)
    place = tmp_path / "pod"
    assert mounts["environment"] == ["type=bind", f"source={place / 'environment'}", "readonly"]
    assert mounts["home"] == ["type=bind", f"source={place / 'home'}"]
    names = {path.name for path in (place / "environment").iterdir()} - {"..data", "..2026"}
    assert names == {"MLFLOW_AUTH_ADMIN_PASSWORD", "MLFLOW_FLASK_SERVER_SECRET_KEY", "PGPASSWORD"}
    assert (place / "environment/PGPASSWORD").read_bytes() == b"word"
    modes = {
        path: stat.S_IMODE(path.stat().st_mode)
        for path in (place / "environment/PGPASSWORD", place / "auth/basic_auth.ini", place / "home")
    }
    assert list(modes.values()) == [0o440, 0o644, 0o2777]
    assert {path.stat().st_gid for path in modes} == {10001}
    worker = Volumes(tmp_path / "worker", tmp_path / "claims", manifests, _worker_secrets()).lay_out(
        pod(manifests, "Deployment/prefect-worker")
    )
    assert worker["project"] == ["type=bind", f"source={tmp_path / 'claims/project'}"]
    assert worker["shared-memory"] == ["type=tmpfs", f"tmpfs-size={2 * 2**30}", "tmpfs-mode=1777"]


def _worker_secrets() -> dict[str, dict[str, bytes]]:
    keys = ("auth", "username", "password", "credentials", "auth_token")
    return {name: dict.fromkeys(keys, b"word") for name in ("prefect-auth", "mlflow-worker", "store-worker", "gkd")}


def test_secrets_are_read_as_they_are_printed() -> None:
    assert secrets_of([{"metadata": {"name": "a"}, "data": {"key": "d29yZA=="}}]) == {"a": {"key": b"word"}}


def test_what_the_translator_does_not_know_is_named(manifests: Manifests) -> None:
    damaged = manifests.copy()
    damaged.named("Deployment", "mlflow")["spec"]["template"]["spec"]["hostNetwork"] = True
    with pytest.raises(AssertionError, match="Deployment/mlflow: \\['hostNetwork'\\]: not known"):
        pod(damaged, "Deployment/mlflow")
    metrics = pod(manifests, "Deployment/metrics")
    with pytest.raises(AssertionError, match="lifecycle"):
        options(metrics.spec["containers"][0] | {"lifecycle": {}}, metrics, {}, {}, 1)
    with pytest.raises(AssertionError, match="1.5Gi: not a quantity"):
        quantity("1.5Gi")


def test_quantities() -> None:
    assert [quantity(text) for text in ("100", "4Ki", "512Mi", "2Gi")] == [100, 4096, 2**29, 2**31]
    assert [cores(text) for text in ("250m", "2")] == [0.25, 2.0]


def test_ray_is_started_as_kuberay_starts_it(manifests: Manifests) -> None:
    head, worker = ray_pods(manifests, workers=1)
    assert (head.name, worker.name) == ("gkd-head", "gkd-cpu-0")
    assert head.labels["ray.io/node-type"] == "head"
    assert head.spec["containers"][0]["args"] == [
        "ulimit -n 65536; ray start --head --block --dashboard-host=0.0.0.0 --metrics-export-port=8080"
        f" --dashboard-agent-listen-port=52365 --num-cpus=0 --memory={4 * 2**30}"
    ]
    address = "gkd-head-svc.gkd.svc.cluster.local:6379"
    assert f"--address={address} " in worker.spec["containers"][0]["args"][0]
    assert [item["name"] for item in worker.spec["initContainers"]] == ["wait-gcs-ready"]
    found = environment(worker.spec["containers"][0], manifests, {"gkd": {"auth_token": b"word"}})
    assert (found["RAY_ADDRESS"], found["RAY_AUTH_MODE"], found["RAY_AUTH_TOKEN"]) == (address, "token", "word")
