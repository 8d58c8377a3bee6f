"""The pods that KubeRay 1.5.1 makes of a RayCluster, as far as ours asks for it: command, variables, shared memory, token.

Left out: the autoscaler's container, which needs Kubernetes.
"""

from __future__ import annotations

import copy
from typing import Any

from tests.containers.pods import POD_KEYS, Pod, cores, known, quantity
from tests.infra.kubernetes import Manifests, Tree

PORT = "6379"
SHELL = ["/bin/bash", "-c", "--"]
TOKEN = "auth_token"


def ray_pods(manifests: Manifests, workers: int) -> list[Pod]:
    """The head, and so many pods of the one group of workers."""
    (cluster,) = manifests.of("RayCluster")
    name, spec = cluster["metadata"]["name"], cluster["spec"]
    (group,) = spec["workerGroupSpecs"]
    assert group["minReplicas"] <= workers <= group["maxReplicas"]
    head = _pod(name, "head", spec["headGroupSpec"])
    return [head, *(_pod(name, f"{group['groupName']}-{number}", group) for number in range(workers))]


def service(cluster: str) -> str:
    """The name under which the head is found."""
    return f"{cluster}-head-svc"


def _pod(cluster: str, title: str, group: Tree) -> Pod:
    head = title == "head"
    spec = copy.deepcopy(group["template"]["spec"])
    labels = group["template"]["metadata"]["labels"] | {
        "ray.io/cluster": cluster,
        "ray.io/node-type": "head" if head else "worker",
    }
    owner = f"RayCluster/{cluster}/{title}"
    known(spec, POD_KEYS, owner)
    container = spec["containers"][0]
    address = f"{service(cluster)}.gkd.svc.cluster.local"
    if not head:
        spec.setdefault("initContainers", []).append(_waits(container, address))
    container["command"] = SHELL
    container["args"] = [f"ulimit -n 65536; {_start(head, group['rayStartParams'], container['resources'], address)}"]
    container.setdefault("env", []).extend(_variables(cluster, head, address))
    spec["volumes"].append(
        {"name": "shared-mem", "emptyDir": {"medium": "Memory", "sizeLimit": container["resources"]["requests"]["memory"]}}
    )
    container["volumeMounts"].append({"name": "shared-mem", "mountPath": "/dev/shm"})
    for each in (container, *spec.get("initContainers", [])):
        each.setdefault("env", []).extend(_token(cluster))
    return Pod(owner, labels, spec)


def _start(head: bool, parameters: dict[str, str], resources: Tree, address: str) -> str:
    limits = resources["limits"]
    given = {"address": f"{address}:{PORT}"} if not head else {"dashboard-host": "0.0.0.0"}
    given |= {"metrics-export-port": "8080", "dashboard-agent-listen-port": "52365", "num-cpus": str(round(cores(limits["cpu"])))}
    given |= {"memory": str(quantity(limits["memory"]))} | parameters
    words = " ".join(f"--{name}={value}" for name, value in given.items())
    return f"ray start {'--head ' if head else ''}--block {words}"


def _waits(container: Tree, address: str) -> Tree:
    script = f"until ray health-check --address {address}:{PORT}; do sleep 5; done"
    kept: Any = {key: copy.deepcopy(container[key]) for key in ("image", "securityContext", "volumeMounts") if key in container}
    sizes = {"cpu": "200m", "memory": "256Mi"}
    resources = {"limits": sizes, "requests": sizes}
    own = copy.deepcopy(container.get("env", []))
    waits: Tree = {"name": "wait-gcs-ready", "command": SHELL, "args": [script], "env": own, "resources": resources, **kept}
    return waits


def _variables(cluster: str, head: bool, address: str) -> list[Tree]:
    found = {"RAY_CLUSTER_NAME": cluster, "RAY_PORT": PORT}
    found |= (
        {"RAY_ADDRESS": f"127.0.0.1:{PORT}"}
        if head
        else {"FQ_RAY_IP": address, "RAY_IP": service(cluster), "RAY_ADDRESS": f"{address}:{PORT}"}
    )
    return [{"name": name, "value": value} for name, value in found.items()]


def _token(cluster: str) -> list[Tree]:
    reference = {"secretKeyRef": {"name": cluster, "key": TOKEN}}
    return [{"name": "RAY_AUTH_MODE", "value": "token"}, {"name": "RAY_AUTH_TOKEN", "valueFrom": reference}]
