"""The Kubernetes manifests as a cluster would get them, and the pods in them."""

from __future__ import annotations

import copy
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

REPOSITORY = Path(__file__).parents[2]
MANIFESTS = REPOSITORY / "infra" / "kubernetes"
Tree = dict[str, Any]


@dataclass(frozen=True)
class PodTemplate:
    """A pod that some object makes.

    Attributes:
        owner: kind and name of the object.
        runs_on: whether it is to run until somebody ends it, so that probes make sense.
        injected: containers that KubeRay adds, as far as we say what they are.
        scales: whether an autoscaler runs in it, which talks to Kubernetes.
    """

    owner: str
    labels: dict[str, str]
    spec: Tree
    runs_on: bool = True
    injected: tuple[Tree, ...] = ()
    scales: bool = False

    @property
    def containers(self) -> list[Tree]:
        return [*self.spec.get("initContainers", []), *self.spec["containers"], *self.injected]


@dataclass(frozen=True)
class Manifests:
    """All objects of one overlay."""

    objects: list[Tree] = field(repr=False)

    def of(self, *kinds: str) -> list[Tree]:
        return [item for item in self.objects if item["kind"] in kinds]

    def named(self, kind: str, name: str) -> Tree:
        (found,) = [item for item in self.of(kind) if item["metadata"]["name"] == name]
        return found

    def copy(self) -> Manifests:
        return Manifests(copy.deepcopy(self.objects))

    def pods(self) -> Iterator[PodTemplate]:
        for item in self.of("Deployment", "StatefulSet", "Job"):
            template = item["spec"]["template"]
            owner = f"{item['kind']}/{item['metadata']['name']}"
            yield PodTemplate(owner, template["metadata"]["labels"], template["spec"], item["kind"] != "Job")
        for item in self.of("RayCluster"):
            yield from _ray_pods(item)

    def environment(self, container: Tree) -> dict[str, str]:
        """Variables of a container: its own, and those of the ConfigMaps that it takes whole."""
        found: dict[str, str] = {}
        for source in container.get("envFrom", []):
            found |= self.named("ConfigMap", source["configMapRef"]["name"])["data"]
        return found | {item["name"]: item.get("value", "") for item in container.get("env", [])}


def _ray_pods(cluster: Tree) -> Iterator[PodTemplate]:
    name, spec = cluster["metadata"]["name"], cluster["spec"]
    groups = [("head", spec["headGroupSpec"]), *(("worker", group) for group in spec["workerGroupSpecs"])]
    for kind, group in groups:
        template = group["template"]
        labels = template["metadata"]["labels"] | {"ray.io/cluster": name, "ray.io/node-type": kind}
        scales = kind == "head" and bool(spec.get("enableInTreeAutoscaling"))
        autoscaler = {"name": "autoscaler", "image": template["spec"]["containers"][0]["image"]} | spec["autoscalerOptions"]
        owner = f"RayCluster/{name}/{group.get('groupName', 'head')}"
        yield PodTemplate(owner, labels, template["spec"], injected=(autoscaler,) if scales else (), scales=scales)


def render(overlay: Path) -> Manifests:
    """What kustomize makes of an overlay."""
    if shutil.which("kustomize"):
        command = ["kustomize", "build", str(overlay)]
    elif shutil.which("kubectl"):
        command = ["kubectl", "kustomize", str(overlay)]
    else:
        pytest.skip("neither kustomize nor kubectl is installed: manifests cannot be put together")
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return Manifests(list(yaml.safe_load_all(done.stdout)))


def render_prod(folder: Path, digest: str = "0123456789abcdef" * 4) -> Manifests:
    """The prod overlay, with its images pinned as build.sh would pin them."""
    tree = folder / "kubernetes"
    shutil.copytree(MANIFESTS, tree)
    overlay = tree / "overlays" / "prod"
    shutil.rmtree(overlay / "images", ignore_errors=True)  # a fresh clone has none
    pins = [f"gkd-{name}=registry.example/gkd-{name}@sha256:{digest}" for name in ("service", "worker")]
    script = REPOSITORY / "infra" / "images" / "pin.py"
    done = subprocess.run([sys.executable, str(script), str(overlay), *pins], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return render(overlay)
