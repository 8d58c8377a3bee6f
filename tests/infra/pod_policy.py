"""What every pod of ours must be. Each rule gives a line for each breach, with the pod and the container."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import PurePosixPath

from tests.infra.kubernetes import Manifests, PodTemplate, Tree
from tests.infra.variables import KNOWN

DIGEST = re.compile(r".+@sha256:[0-9a-f]{64}")
DEVELOPMENT = re.compile(r"gkd-(service|worker):dev")
SECRET_NAME = re.compile(r"PASSWORD|SECRET|TOKEN|AUTH_STRING|ACCESS_KEY|CREDENTIAL")
NAMES_A_FILE = re.compile(r"_(FILE|PATH)$")
PASSWORD_IN_ADDRESS = re.compile(r"://[^/\s:@]*:[^/\s@]+@")
PATHS = ("PREFECT_HOME", "PREFECT_UI_STATIC_DIRECTORY", "PGDATA", "HOME", "PWD")


def breaches(manifests: Manifests) -> list[str]:
    """All that is wrong with any pod."""
    found: list[str] = []
    for pod in manifests.pods():
        found += [f"{pod.owner}: {line}" for line in _pod(pod, manifests)]
        for container in pod.containers:
            lines = [*_confined(container), *_sized(container), *_pinned(container), *_tells_no_secret(container, manifests)]
            lines += [*_known(container, manifests), *_can_write(container, pod, manifests)]
            found += [f"{pod.owner}: {container['name']}: {line}" for line in lines]
        if pod.runs_on:
            found += [f"{pod.owner}: {item['name']}: {line}" for item in pod.spec["containers"] for line in _probed(item)]
    return found


def _pod(pod: PodTemplate, manifests: Manifests) -> Iterator[str]:
    security = pod.spec.get("securityContext", {})
    if security.get("runAsNonRoot") is not True or not security.get("runAsUser"):
        yield "may run as root"
    if security.get("seccompProfile", {}).get("type") != "RuntimeDefault":
        yield "no seccomp profile"
    for key in ("hostNetwork", "hostPID", "hostIPC"):
        if pod.spec.get(key):
            yield f"shares {key} with the node"
    for volume in pod.spec.get("volumes", []):
        if "hostPath" in volume:
            yield f"volume {volume['name']} is a folder of the node"
        if "emptyDir" in volume and "sizeLimit" not in volume["emptyDir"]:
            yield f"volume {volume['name']} has no limit"
    if pod.spec.get("automountServiceAccountToken") is not pod.scales:
        yield "has a token of Kubernetes" if not pod.scales else "lacks the token that its autoscaler needs"
    account = pod.spec.get("serviceAccountName")
    if not pod.scales and account not in [item["metadata"]["name"] for item in manifests.of("ServiceAccount")]:
        yield f"service account {account} is not there"


def _confined(container: Tree) -> Iterator[str]:
    security = container.get("securityContext", {})
    if security.get("readOnlyRootFilesystem") is not True:
        yield "its root can be written"
    if security.get("allowPrivilegeEscalation") is not False:
        yield "may gain rights"
    if security.get("capabilities") != {"drop": ["ALL"]}:
        yield "keeps capabilities"
    if security.get("privileged") or security.get("runAsUser") == 0 or security.get("runAsNonRoot") is False:
        yield "is privileged or root"


def _sized(container: Tree) -> Iterator[str]:
    for kind in ("requests", "limits"):
        for resource in ("cpu", "memory"):
            if resource not in container.get("resources", {}).get(kind, {}):
                yield f"no {kind} of {resource}"


def _pinned(container: Tree) -> Iterator[str]:
    image = container["image"]
    if not DIGEST.fullmatch(image) and not DEVELOPMENT.fullmatch(image):
        yield f"image {image} is not pinned by its digest"


def _probed(container: Tree) -> Iterator[str]:
    names = {item.get("name") for item in container.get("ports", [])}
    for kind in ("startupProbe", "readinessProbe", "livenessProbe"):
        probe = container.get(kind)
        if probe is None:
            yield f"no {kind}"
        elif "httpGet" in probe and probe["httpGet"]["port"] not in names:
            yield f"{kind} asks port {probe['httpGet']['port']}, which it has not"


def _tells_no_secret(container: Tree, manifests: Manifests) -> Iterator[str]:
    for item in container.get("env", []):
        if "secretKeyRef" in item.get("valueFrom", {}):
            yield f"{item['name']}: a secret as a variable; mount it below /run/environment"
    for name, value in manifests.environment(container).items():
        if SECRET_NAME.search(name) and not NAMES_A_FILE.search(name):
            yield f"{name}: a secret's value"
        if PASSWORD_IN_ADDRESS.search(value):
            yield f"{name}: a password in an address"


def mounted_variables(container: Tree, pod: PodTemplate) -> dict[str, tuple[str, str]]:
    """Variables that the entry point makes of mounted secrets: name → Secret and key."""
    volumes = {item["name"]: item for item in pod.spec.get("volumes", [])}
    found = {}
    for mount in container.get("volumeMounts", []):
        if mount["mountPath"] == "/run/environment":
            for source in volumes[mount["name"]]["projected"]["sources"]:
                for item in source["secret"]["items"]:
                    found[item["path"]] = (source["secret"]["name"], item["key"])
    return found


def _known(container: Tree, manifests: Manifests) -> Iterator[str]:
    for name in manifests.environment(container):
        if name not in KNOWN:
            yield f"{name}: a variable that nothing reads"


def _can_write(container: Tree, pod: PodTemplate, manifests: Manifests) -> Iterator[str]:
    volumes = {item["name"] for item in pod.spec.get("volumes", [])}
    if pod.owner.startswith("StatefulSet/"):
        volumes |= {"data"}
    writable = []
    for mount in container.get("volumeMounts", []):
        if mount["name"] not in volumes:
            yield f"mounts {mount['name']}, which the pod has not"
        elif not mount.get("readOnly"):
            writable.append(PurePosixPath(mount["mountPath"]))
    if PurePosixPath("/tmp") not in writable:
        yield "has no /tmp to write in"
    for name, value in manifests.environment(container).items():
        if name in PATHS and not any(PurePosixPath(value).is_relative_to(place) for place in writable):
            yield f"{name}: {value} cannot be written"
