"""The Kubernetes manifests: schemas, our own rules, and that the rules see what is damaged."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from tests.infra import network_policy, pod_policy
from tests.infra.kubernetes import MANIFESTS, REPOSITORY, Manifests, Tree, render, render_prod
from tests.infra.variables import unread

KUBERNETES = "1.37"
FROM_KUBERAY = {("gkd", "auth_token")}


@pytest.fixture(scope="module")
def dev() -> Manifests:
    return render(MANIFESTS / "overlays" / "dev")


@pytest.fixture(scope="module")
def prod(tmp_path_factory: pytest.TempPathFactory) -> Manifests:
    return render_prod(tmp_path_factory.mktemp("prod"))


@pytest.fixture(scope="module", params=["dev", "prod"])
def manifests(request: pytest.FixtureRequest) -> Manifests:
    found: Manifests = request.getfixturevalue(request.param)
    return found


def breaches(manifests: Manifests) -> list[str]:
    return [*pod_policy.breaches(manifests), *network_policy.breaches(manifests), *referenced(manifests)]


def referenced(manifests: Manifests) -> Iterator[str]:
    """Objects that a pod names and that are not there."""
    claims = {item["metadata"]["name"] for item in manifests.of("PersistentVolumeClaim")}
    maps = {item["metadata"]["name"] for item in manifests.of("ConfigMap")}
    for pod in manifests.pods():
        for volume in pod.spec.get("volumes", []):
            claim = volume.get("persistentVolumeClaim", {}).get("claimName")
            config = volume.get("configMap", {}).get("name")
            if (claim and claim not in claims) or (config and config not in maps):
                yield f"{pod.owner}: volume {volume['name']}: {claim or config} is not there"
    for budget in manifests.of("PodDisruptionBudget"):
        if not any(network_policy.selects(budget["spec"]["selector"], pod.labels) for pod in manifests.pods()):
            yield f"PodDisruptionBudget/{budget['metadata']['name']}: keeps no pod"


def test_nothing_breaks_a_rule(manifests: Manifests) -> None:
    assert breaches(manifests) == []


def test_every_object_fits_its_schema(manifests: Manifests, monkeypatch: pytest.MonkeyPatch) -> None:
    _read_schemas_once(monkeypatch)
    for item in manifests.objects:
        if item["apiVersion"] == "ray.io/v1":
            _check_ray_cluster(item)
        else:
            kubernetes_validate.validate(item, KUBERNETES, strict=True)
        if item["kind"] != "Namespace":
            assert item["metadata"]["namespace"] == "gkd"


def test_the_schemas_see_a_wrong_key(dev: Manifests, monkeypatch: pytest.MonkeyPatch) -> None:
    _read_schemas_once(monkeypatch)
    damaged = dev.copy()
    damaged.named("Deployment", "mlflow")["spec"]["template"]["spec"]["containers"][0]["reources"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(damaged.named("Deployment", "mlflow"), KUBERNETES, strict=True)
    damaged.named("RayCluster", "gkd")["spec"]["workerGroupSpecs"][0]["template"]["spec"]["tolerates"] = []
    with pytest.raises(kubernetes_validate.ValidationError):
        _check_ray_cluster(damaged.named("RayCluster", "gkd"))
    cluster = dev.copy().named("RayCluster", "gkd")
    cluster["spec"]["authOptions"] = {"mode": "disabled"}
    with pytest.raises(jsonschema.ValidationError):
        _check_ray_cluster(cluster)


def _read_schemas_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The package reads its files of definitions for each object."""
    from functools import lru_cache

    from kubernetes_validate import utils

    monkeypatch.setattr(utils, "schema_contents", lru_cache(utils.schema_contents))


def _check_ray_cluster(cluster: Tree) -> None:
    """No package has KubeRay's schema: what we use of it, by its Go types of release 1.5, and each pod by Kubernetes' own."""
    schema = yaml.safe_load((Path(__file__).parent / "raycluster-schema.yaml").read_text(encoding="utf-8"))
    jsonschema.validate(cluster, schema)
    for group in (cluster["spec"]["headGroupSpec"], *cluster["spec"]["workerGroupSpecs"]):
        pod = {"apiVersion": "v1", "kind": "Pod", **group["template"]}
        kubernetes_validate.validate(pod, KUBERNETES, strict=True)


def test_no_secret_is_in_git_and_every_one_that_is_named_can_be_made(manifests: Manifests, tmp_path: Path) -> None:
    assert manifests.of("Secret") == []
    made = _secrets(tmp_path)
    for pod in manifests.pods():
        for name, key in _secret_keys(pod.spec):
            assert (name, key) in made | FROM_KUBERAY, f"{pod.owner}: {name}: {key}"


def _secrets(folder: Path) -> set[tuple[str, str]]:
    subprocess.run([REPOSITORY / "infra/secrets.sh", folder / "secrets"], check=True, capture_output=True)
    script = REPOSITORY / "infra/kubernetes/secrets.sh"
    text = subprocess.run([script, folder / "secrets"], check=True, capture_output=True, text=True).stdout
    return {(item["metadata"]["name"], key) for item in yaml.safe_load_all(text) for key in item["data"]}


def _secret_keys(spec: Tree) -> Iterator[tuple[str, str]]:
    for volume in spec.get("volumes", []):
        if "secret" in volume:
            keys = [item["key"] for item in volume["secret"].get("items", [])]
            yield from ((volume["secret"]["secretName"], key) for key in keys or [_only_key(volume["name"])])
        for source in volume.get("projected", {}).get("sources", []):
            yield from ((source["secret"]["name"], item["key"]) for item in source["secret"]["items"])


def _only_key(volume: str) -> str:
    return {"store": "credentials", "identities": "identities.json", "password": "password"}[volume]


def test_every_variable_is_read_by_what_is_installed() -> None:
    assert unread() == []


def test_mounted_secrets_are_variables_that_something_reads(manifests: Manifests) -> None:
    for pod in manifests.pods():
        for container in pod.containers:
            assert pod_policy.mounted_variables(container, pod).keys() <= pod_policy.KNOWN


def test_pods_are_held_to_the_restricted_standard(manifests: Manifests) -> None:
    labels = manifests.named("Namespace", "gkd")["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"


def test_prod_keeps_no_database_and_no_store_and_asks_by_tls(prod: Manifests) -> None:
    assert prod.of("StatefulSet") == []
    assert prod.named("ConfigMap", "database-client")["data"]["PGSSLMODE"] == "verify-full"
    assert prod.named("ConfigMap", "store-client")["data"]["AWS_ENDPOINT_URL"].startswith("https://")
    for flow in ("database", "store", "kubernetes-api"):
        rules = prod.named("NetworkPolicy", f"{flow}-may-be-asked")["spec"]["egress"]
        assert all("ipBlock" in peer for rule in rules for peer in rule["to"])


def test_prod_is_not_made_without_pinned_images() -> None:
    assert not (MANIFESTS / "overlays/prod/images").exists() or "digest: sha256:" in (
        MANIFESTS / "overlays/prod/images/kustomization.yaml"
    ).read_text(encoding="utf-8")


def test_ray_is_of_the_version_that_is_pinned(manifests: Manifests) -> None:
    (pin,) = re.findall(r"^ray==(\S+)", (REPOSITORY / "requirements.txt").read_text(encoding="utf-8"), re.MULTILINE)
    spec = manifests.named("RayCluster", "gkd")["spec"]
    assert spec["rayVersion"] == pin
    assert spec["authOptions"] == {"mode": "token"}
    assert spec["enableInTreeAutoscaling"] is True


def test_gpus_are_asked_for_in_prod_alone(dev: Manifests, prod: Manifests) -> None:
    def limits(manifests: Manifests) -> Tree:
        (group,) = manifests.named("RayCluster", "gkd")["spec"]["workerGroupSpecs"]
        found: Tree = group["template"]["spec"]["containers"][0]["resources"]["limits"]
        return found

    assert limits(prod)["nvidia.com/gpu"] == "1"
    assert "nvidia.com/gpu" not in limits(dev)


def container(manifests: Manifests, kind: str, name: str) -> Any:
    return manifests.named(kind, name)["spec"]["template"]["spec"]["containers"][0]


def pod(manifests: Manifests, kind: str, name: str) -> Any:
    return manifests.named(kind, name)["spec"]["template"]["spec"]


def ray(manifests: Manifests) -> Any:
    return manifests.named("RayCluster", "gkd")["spec"]


def policy(manifests: Manifests, name: str) -> Any:
    return manifests.named("NetworkPolicy", name)["spec"]


def without(manifests: Manifests, kind: str, name: str) -> None:
    manifests.objects.remove(manifests.named(kind, name))


DAMAGE: dict[str, Callable[[Manifests], object]] = {
    "Deployment/mlflow: may run as root": lambda m: pod(m, "Deployment", "mlflow")["securityContext"].pop("runAsNonRoot"),
    "Deployment/mlflow: no seccomp profile": lambda m: pod(m, "Deployment", "mlflow")["securityContext"].pop("seccompProfile"),
    "Job/deploy: has a token of Kubernetes": lambda m: pod(m, "Job", "deploy").pop("automountServiceAccountToken"),
    "lacks the token that its autoscaler needs": lambda m: ray(m)["headGroupSpec"]["template"]["spec"].update(
        automountServiceAccountToken=False
    ),
    "prefect-worker: its root can be written": lambda m: container(m, "Deployment", "prefect-worker")["securityContext"].update(
        readOnlyRootFilesystem=False
    ),
    "autoscaler: keeps capabilities": lambda m: ray(m)["autoscalerOptions"]["securityContext"].pop("capabilities"),
    "ray-worker: may gain rights": lambda m: ray(m)["workerGroupSpecs"][0]["template"]["spec"]["containers"][0][
        "securityContext"
    ].pop("allowPrivilegeEscalation"),
    "project: no limits of memory": lambda m: pod(m, "Job", "deploy")["initContainers"][0]["resources"]["limits"].pop("memory"),
    "mlflow: no livenessProbe": lambda m: container(m, "Deployment", "mlflow").pop("livenessProbe"),
    "image docker.io/library/postgres:17 is not pinned": lambda m: container(m, "StatefulSet", "postgres").update(
        image="docker.io/library/postgres:17"
    ),
    "image gkd-service:latest is not pinned": lambda m: container(m, "Deployment", "mlflow").update(image="gkd-service:latest"),
    "MLFLOW_FLASK_SERVER_SECRET_KEY: a secret's value": lambda m: container(m, "Deployment", "mlflow")["env"].append(
        {"name": "MLFLOW_FLASK_SERVER_SECRET_KEY", "value": "x"}
    ),
    "PGHOST: a password in an address": lambda m: container(m, "Deployment", "mlflow")["env"].append(
        {"name": "PGHOST", "value": "postgresql://user:word@host/x"}
    ),
    "PREFECT_API_UURL: a variable that nothing reads": lambda m: m.named("ConfigMap", "prefect-client")["data"].update(
        PREFECT_API_UURL="x"
    ),
    "PREFECT_HOME: /opt/x cannot be written": lambda m: container(m, "Deployment", "prefect-server")["env"].append(
        {"name": "PREFECT_HOME", "value": "/opt/x"}
    ),
    "mlflow: has no /tmp to write in": lambda m: container(m, "Deployment", "mlflow")["volumeMounts"].pop(),
    "volume tmp has no limit": lambda m: pod(m, "Deployment", "mlflow")["volumes"][-1].update(emptyDir={}),
    "no NetworkPolicy denies everything by default": lambda m: without(m, "NetworkPolicy", "default-deny"),
    "Service/mlflow: port http is opened by 0 policies": lambda m: without(m, "NetworkPolicy", "mlflow-is-asked"),
    "Service/postgres: port postgres is opened by 2 policies": lambda m: m.objects.append(
        {**m.named("NetworkPolicy", "database-is-asked"), "metadata": {"name": "another"}}
    ),
    "NetworkPolicy/mlflow-is-asked: opens Deployment/mlflow at 22, where no Service leads": lambda m: policy(
        m, "mlflow-is-asked"
    )["ingress"][0]["ports"].append({"protocol": "TCP", "port": 22}),
    "only one end knows of the flow store": lambda m: policy(m, "store-may-be-asked")["egress"][0]["ports"][0].update(port=9000),
    "Deployment/prefect-worker: has the address of ray (RAY_AUTH_TOKEN_PATH), and may not ask it": lambda m: m.named(
        "Deployment", "prefect-worker"
    )["spec"]["template"]["metadata"]["labels"].pop("access.gkd/ray"),
    "StatefulSet/postgres: may ask prefect, and has not its address": lambda m: m.named("StatefulSet", "postgres")["spec"][
        "template"
    ]["metadata"]["labels"].update({"access.gkd/prefect": "true"}),
    "ConfigMap/mlflow-client: mlflow:5001 is no Service's port": lambda m: m.named("ConfigMap", "mlflow-client")["data"].update(
        MLFLOW_TRACKING_URI="http://mlflow:5001"
    ),
    "RayCluster/gkd/cpu: its metrics at 8080 are open to []": lambda m: without(m, "NetworkPolicy", "ray-is-scraped"),
    "Deployment/metrics: its metrics at 9464 are open to [[{}]]": lambda m: policy(m, "platform-is-scraped")["ingress"][0].update(
        {"from": [{}]}
    ),
    "volume project: project is not there": lambda m: without(m, "PersistentVolumeClaim", "project"),
    "PodDisruptionBudget/mlflow: keeps no pod": lambda m: m.named("PodDisruptionBudget", "mlflow")["spec"]["selector"].update(
        matchLabels={"app.kubernetes.io/name": "mlflw"}
    ),
}


@pytest.mark.parametrize("line", DAMAGE)
def test_damage_is_seen(line: str, dev: Manifests) -> None:
    damaged = dev.copy()
    DAMAGE[line](damaged)
    found = breaches(damaged)
    assert any(line in item for item in found), found


def test_pin_refuses_what_is_no_digest(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="expected NAME=REGISTRY/IMAGE@sha256:"):
        render_prod(tmp_path, digest="latest")


def test_the_example_of_monitors_selects_pods_with_the_port_that_it_names(dev: Manifests) -> None:
    monitors = list(yaml.safe_load_all((MANIFESTS / "examples/pod-monitors.yaml").read_text(encoding="utf-8")))
    found = set()
    for monitor in monitors:
        (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
        pods = [pod for pod in dev.pods() if network_policy.selects(monitor["spec"]["selector"], pod.labels)]
        for pod in pods:
            assert endpoint["port"] in {port["name"] for item in pod.spec["containers"] for port in item.get("ports", [])}
            found.add(pod.owner)
    assert found == {"Deployment/metrics", "RayCluster/gkd/head", "RayCluster/gkd/cpu"}


def test_the_example_of_a_secret_store_fills_a_secret_that_is_named(dev: Manifests) -> None:
    example = yaml.safe_load((MANIFESTS / "examples/external-secrets.yaml").read_text(encoding="utf-8"))
    wanted = {key for pod in dev.pods() for name, key in _secret_keys(pod.spec) if name == example["spec"]["target"]["name"]}
    assert {item["secretKey"] for item in example["spec"]["data"]} == wanted
    assert "value" not in json.dumps(example)
