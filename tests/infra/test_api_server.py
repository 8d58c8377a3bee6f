"""Both overlays against a real Kubernetes API server: admission, defaults, the schemas' and the programs' own checks."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.infra.api_server import ApiServer, api_server_or_skip
from tests.infra.kubernetes import MANIFESTS, Manifests, Tree, render, render_prod

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

CLUSTERS = "rayclusters.ray.io"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    with api_server_or_skip(tmp_path_factory.mktemp("api-server")) as server:
        namespace = yaml.safe_load((MANIFESTS / "base/namespace.yaml").read_text(encoding="utf-8"))
        for item in (namespace, ray_definition()):
            answer = server.apply(item, server.path(item), dry=False)
            assert answer.ok, answer.text
        yield server


@pytest.fixture(scope="module", params=["dev", "prod"])
def manifests(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Manifests:
    return render(MANIFESTS / "overlays" / "dev") if request.param == "dev" else render_prod(tmp_path_factory.mktemp("prod"))


def ray_definition() -> Tree:
    """RayCluster as raycluster-schema.yaml has it; pods in it are checked as pods."""
    schema = structural(yaml.safe_load((Path(__file__).parent / "raycluster-schema.yaml").read_text(encoding="utf-8")))
    names = {"kind": "RayCluster", "listKind": "RayClusterList", "plural": "rayclusters", "singular": "raycluster"}
    version = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
    spec = {"group": "ray.io", "names": names, "scope": "Namespaced", "versions": [version]}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": CLUSTERS},
        "spec": spec,
    }


def structural(schema: Tree) -> Tree:
    """A JSON schema in the words that a CustomResourceDefinition may use; what is not listed is refused there anyway."""
    definitions = schema.pop("$defs")

    def turned(node: Any) -> Any:
        if "$ref" in node:
            return turned(definitions[node["$ref"].rpartition("/")[2]])
        found = {key: value for key, value in node.items() if key not in ("const", "additionalProperties")}
        if "const" in node:
            found = {"type": "string", "enum": [node["const"]]}
        if "enum" in node:
            found["type"] = "string"
        if isinstance(node.get("additionalProperties"), dict):
            found["additionalProperties"] = node["additionalProperties"]
        if "properties" in node:
            found["properties"] = {key: turned(value) for key, value in node["properties"].items()}
        elif found.get("type") == "object" and "additionalProperties" not in found:
            found["x-kubernetes-preserve-unknown-fields"] = True
        if found.get("type") == "array":
            unknown = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
            found["items"] = turned(node["items"]) if "items" in node else unknown
        return found

    result: Tree = turned(schema)
    result["properties"] |= {"apiVersion": {"type": "string"}, "kind": {"type": "string"}, "metadata": {"type": "object"}}
    return result


def for_version(item: Tree, version: tuple[int, int]) -> Tree:
    """An object as an older server takes it: only what 1.21 brought is said in 1.20's words."""
    if version >= (1, 21):
        return item
    item = copy.deepcopy(item)
    if item["apiVersion"] == "policy/v1":
        item["apiVersion"] = "policy/v1beta1"
    if item["kind"] == "Service":  # its defaults came too late for its own lists
        for port in item["spec"]["ports"]:
            port.setdefault("protocol", "TCP")
    if item["kind"] == "NetworkPolicy":
        for rule in (*item["spec"].get("ingress", []), *item["spec"].get("egress", [])):
            for port in rule["ports"]:
                port.pop("endPort", None)
    return item


def test_every_object_is_taken(server: ApiServer, manifests: Manifests) -> None:
    refused = {}
    for item in (for_version(item, server.version) for item in manifests.objects):
        answer = server.apply(item, server.path(item))
        if not answer.ok:
            refused[f"{item['kind']}/{item['metadata']['name']}"] = answer.json()["message"]
    assert refused == {}


def test_every_pod_of_ray_is_taken_as_a_pod(server: ApiServer, manifests: Manifests) -> None:
    for pod in manifests.pods():
        if pod.owner.startswith("RayCluster/"):
            meta = {"name": "pod", "namespace": "gkd", "labels": pod.labels}
            item = {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": pod.spec}
            answer = server.apply(item, server.path(item))
            assert answer.ok, f"{pod.owner}: {answer.text}"


DAMAGE = {
    "a key that the schema lacks": ("Deployment", "mlflow", lambda pod: pod["containers"][0].update(reources={})),
    "a mount of no volume": ("Deployment", "mlflow", lambda pod: pod["containers"][0]["volumeMounts"][0].update(name="nothing")),
    "a limit below the request": (
        "Deployment", "prefect-worker", lambda pod: pod["containers"][0]["resources"]["limits"].update(memory="1Mi"),
    ),
    "a mode that is none": ("Deployment", "mlflow", lambda pod: pod["volumes"][1]["projected"].update(defaultMode=0o1777)),
    "a Job that is to run for ever": ("Job", "deploy", lambda pod: pod.update(restartPolicy="Always")),
    "a name that is none": ("Deployment", "mlflow", lambda pod: pod.update(serviceAccountName="Not_A_Name")),
}  # fmt: skip


@pytest.mark.parametrize("title", DAMAGE)
def test_damage_is_refused(title: str, server: ApiServer) -> None:
    kind, name, damage = DAMAGE[title]
    item = render(MANIFESTS / "overlays" / "dev").copy().named(kind, name)
    assert server.apply(item, server.path(item)).ok
    damage(item["spec"]["template"]["spec"])
    assert not server.apply(item, server.path(item)).ok


def test_a_cluster_of_ray_without_its_token_is_refused(server: ApiServer) -> None:
    item = render(MANIFESTS / "overlays" / "dev").copy().named("RayCluster", "gkd")
    item["spec"]["authOptions"]["mode"] = "disabled"
    answer = server.apply(item, server.path(item))
    assert answer.status_code == 422
    assert "authOptions.mode" in answer.text
