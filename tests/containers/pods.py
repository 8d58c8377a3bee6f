"""Pods of rendered manifests as containers of an engine: the part of Kubernetes' node agent that our manifests use.

Nothing here runs anything: `pod_of` reads a pod, `Volumes` makes folders of its volumes, `options` gives docker's options.
What is not known here is refused by name, so that a manifest cannot use it unseen.
"""

from __future__ import annotations

import os
import re
from base64 import b64decode
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.infra.kubernetes import Manifests, PodTemplate, Tree

Secrets = Mapping[str, Mapping[str, bytes]]
CONTAINER_KEYS = {
    "name", "image", "command", "args", "env", "envFrom", "ports", "resources", "securityContext", "volumeMounts",
    "startupProbe", "readinessProbe", "livenessProbe", "imagePullPolicy",
}  # fmt: skip
POD_KEYS = {
    "containers", "initContainers", "volumes", "securityContext", "serviceAccountName", "automountServiceAccountToken",
    "enableServiceLinks", "restartPolicy", "terminationGracePeriodSeconds", "tolerations", "topologySpreadConstraints",
}  # fmt: skip
UNITS = {"": 1, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30}


@dataclass(frozen=True)
class Pod:
    """A pod that is to run.

    Attributes:
        owner: kind and name of what makes it.
        claims: volumes that its StatefulSet claims for it.
    """

    owner: str
    labels: dict[str, str]
    spec: Tree
    claims: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return self.owner.partition("/")[2].replace("/", "-").lower()

    @property
    def user(self) -> Tree:
        context: Tree = self.spec["securityContext"]
        return context


def pod_of(manifests: Manifests, template: PodTemplate) -> Pod:
    """A pod as its owner's controller makes it; `RayCluster`s are KubeRay's (kuberay.py)."""
    kind, _, name = template.owner.partition("/")
    claims = ()
    if kind == "StatefulSet":
        spec = manifests.named(kind, name)["spec"]
        claims = tuple(item["metadata"]["name"] for item in spec.get("volumeClaimTemplates", []))
    known(template.spec, POD_KEYS, template.owner)
    return Pod(template.owner, template.labels, template.spec, claims)


def known(tree: Tree, keys: set[str], where: str) -> None:
    unknown = tree.keys() - keys
    assert not unknown, f"{where}: {sorted(unknown)}: not known to this translator; teach it first"


def quantity(text: str) -> int:
    """Bytes of a quantity such as 512Mi."""
    match = re.fullmatch(r"(\d+)(Ki|Mi|Gi|)", text)
    assert match, f"{text}: not a quantity that this translator knows"
    return int(match[1]) * UNITS[match[2]]


def cores(text: str) -> float:
    return int(text[:-1]) / 1000 if text.endswith("m") else float(text)


def environment(container: Tree, manifests: Manifests, secrets: Secrets) -> dict[str, str]:
    """Variables of a container: ConfigMaps first, then its own, in which $(NAME) stands for an earlier one."""
    found: dict[str, str] = {}
    for source in container.get("envFrom", []):
        known(source, {"configMapRef"}, container["name"])
        found |= manifests.named("ConfigMap", source["configMapRef"]["name"])["data"]
    for item in container.get("env", []):
        if "valueFrom" in item:
            known(item["valueFrom"], {"secretKeyRef"}, f"{container['name']}: {item['name']}")
            reference = item["valueFrom"]["secretKeyRef"]
            value = secrets[reference["name"]][reference["key"]].decode()
        else:
            value = expanded(item["value"], found)
        found[item["name"]] = value
    return found


def expanded(text: str, variables: Mapping[str, str]) -> str:
    """$(NAME) by its value; one that is not there stays as it is, and $$ is a dollar sign."""
    return re.sub(r"\$\$|\$\((\w+)\)", lambda match: "$" if match[0] == "$$" else variables.get(match[1], match[0]), text)


def secrets_of(objects: list[Tree]) -> dict[str, dict[str, bytes]]:
    """The content of Secrets, as infra/kubernetes/secrets.sh prints them."""
    return {item["metadata"]["name"]: {key: b64decode(value) for key, value in item["data"].items()} for item in objects}


@dataclass(frozen=True)
class Volumes:
    """A pod's volumes as folders: written as the node agent writes them, with its modes and its group.

    Attributes:
        folder: of this pod alone. Claims lie in `claims`, which outlasts the pod.
    """

    folder: Path
    claims: Path
    manifests: Manifests
    secrets: Secrets

    def lay_out(self, pod: Pod) -> dict[str, list[str]]:
        """Make all of them; gives the options of a mount for each, but for its path in the container."""
        found = {item["name"]: self._volume(item, pod.user["fsGroup"]) for item in pod.spec.get("volumes", [])}
        for claim in pod.claims:
            found[claim] = self._claim(f"{pod.name}-{claim}", pod.user["fsGroup"])
        return found

    def _volume(self, volume: Tree, group: int) -> list[str]:
        name, (kind, source) = volume["name"], next((key, value) for key, value in volume.items() if key != "name")
        if kind == "emptyDir" and source.get("medium") == "Memory":
            return ["type=tmpfs", f"tmpfs-size={quantity(source['sizeLimit'])}", "tmpfs-mode=1777"]
        if kind == "emptyDir":
            return self._folder(self.folder / name, 0o2777, group)
        if kind == "persistentVolumeClaim":
            return self._claim(source["claimName"], group)
        place = self.folder / name
        files = dict(self._files(kind, source))
        _project(place, files, source.get("defaultMode", 0o644), group)
        return [*self._folder(place, 0o2755, group), "readonly"]

    def _claim(self, name: str, group: int) -> list[str]:
        return self._folder(self.claims / name, 0o2775, group)

    @staticmethod
    def _folder(path: Path, mode: int, group: int) -> list[str]:
        path.mkdir(parents=True, exist_ok=True)
        os.chown(path, 0, group)
        path.chmod(mode)
        return ["type=bind", f"source={path}"]

    def _files(self, kind: str, source: Tree) -> Iterator[tuple[str, bytes]]:
        if kind == "projected":
            for each in source["sources"]:
                known(each, {"secret"}, "projected")
                yield from self._files("secret", each["secret"])
        elif kind == "secret":
            content = self.secrets[source.get("secretName") or source["name"]]
            items = source.get("items") or [{"key": key, "path": key} for key in content]
            yield from ((item["path"], content[item["key"]]) for item in items)
        else:
            assert kind == "configMap", f"volume of kind {kind}: not known to this translator; teach it first"
            data = self.manifests.named("ConfigMap", source["name"])["data"]
            yield from ((key, value.encode()) for key, value in data.items())


def _project(place: Path, files: Mapping[str, bytes], mode: int, group: int) -> None:
    """As the node agent: each file is a link into a folder that can be changed at one stroke."""
    data = place / "..2026"
    data.mkdir(parents=True)
    os.chown(data, 0, group)
    data.chmod(0o2755)
    (place / "..data").symlink_to(data.name)
    for name, content in files.items():
        path = data / name
        path.write_bytes(content)
        os.chown(path, 0, group)
        path.chmod(mode | 0o440)  # what the group of the pod's volumes must be able to read
        (place / name).symlink_to(f"..data/{name}")


def options(
    container: Tree, pod: Pod, mounts: Mapping[str, list[str]], variables: Mapping[str, str], most_cores: int
) -> list[str]:
    """Options of `docker run` for a container, but for its name, its network and its image.

    Args:
        mounts: of the pod's volumes.
        most_cores: what the machine has; a limit above it is one that cannot be reached, and the engine refuses it.
    """
    known(container, CONTAINER_KEYS, f"{pod.owner}: {container['name']}")
    security, limits = container["securityContext"], container["resources"]["limits"]
    known(security, {"allowPrivilegeEscalation", "readOnlyRootFilesystem", "capabilities"}, container["name"])
    user = pod.user
    found = [f"--user={user['runAsUser']}:{user['runAsGroup']}", f"--group-add={user['fsGroup']}"]
    if security.get("readOnlyRootFilesystem"):
        found.append("--read-only")
    if security.get("allowPrivilegeEscalation") is False:
        found.append("--security-opt=no-new-privileges")
    if user.get("seccompProfile") != {"type": "RuntimeDefault"}:
        found.append("--security-opt=seccomp=unconfined")
    found += [f"--cap-drop={name}" for name in security.get("capabilities", {}).get("drop", [])]
    found += [f"--memory={quantity(limits['memory'])}", f"--cpus={min(cores(limits['cpu']), most_cores)}"]
    for mount in container.get("volumeMounts", []):
        words = [*mounts[mount["name"]], f"target={mount['mountPath']}"]
        words += ["readonly"] if mount.get("readOnly") and "readonly" not in words else []
        found.append(f"--mount={','.join(words)}")
    return [*found, *(f"--env={name}={value}" for name, value in variables.items())]


def command(container: Tree, variables: Mapping[str, str]) -> tuple[list[str], list[str]]:
    """The option of the entry point where the manifest puts one in place of the image's, and the words after the image."""
    words = [expanded(word, variables) for word in container.get("args", [])]
    if "command" not in container:
        return [], words
    first, *rest = (expanded(word, variables) for word in container["command"])
    return [f"--entrypoint={first}"], [*rest, *words]


def port(container: Tree, probe: Tree) -> int:
    """The number of the port that a probe asks."""
    wanted = probe["port"]
    number: Any = next(
        (item["containerPort"] for item in container["ports"] if wanted in (item["name"], item["containerPort"])), None
    )
    assert number, f"{container['name']}: a probe asks port {wanted}, which it has not"
    return int(number)
