"""Who may reach whom: nobody, but for flows that both ends know of."""

from __future__ import annotations

import re
from collections.abc import Iterator
from urllib.parse import urlsplit

from tests.infra.kubernetes import Manifests, PodTemplate, Tree

ACCESS = "access.gkd/"
# What a client of each server has of it: its address, or what lets one in where the address is a setting. A pod has the right
# where it has this, and not otherwise.
ADDRESSES = {
    "prefect": "PREFECT_API_URL", "mlflow": "MLFLOW_TRACKING_URI", "database": "PGHOST", "store": "AWS_ENDPOINT_URL",
    "ray": "RAY_AUTH_TOKEN_PATH",
}  # fmt: skip


def breaches(manifests: Manifests) -> list[str]:
    """All that is wrong with the flows."""
    return [
        *_denies_by_default(manifests), *_service_ports(manifests), *_flows_match(manifests), *_rights_are_used(manifests),
        *_addresses_exist(manifests), *_scraped(manifests),
    ]  # fmt: skip


def _denies_by_default(manifests: Manifests) -> Iterator[str]:
    for policy in manifests.of("NetworkPolicy"):
        spec = policy["spec"]
        denies = not spec.get("ingress") and not spec.get("egress") and set(spec["policyTypes"]) == {"Ingress", "Egress"}
        if denies and spec["podSelector"] == {}:
            return
    yield "no NetworkPolicy denies everything by default"


def selects(selector: Tree, labels: dict[str, str]) -> bool:
    return selector.get("matchLabels", {}).items() <= labels.items()


def _opened(manifests: Manifests, pod: PodTemplate) -> list[tuple[str, int]]:
    """Name of the policy and port, for each single port on which a pod may be asked."""
    return [
        (policy["metadata"]["name"], port["port"])
        for policy in manifests.of("NetworkPolicy")
        if selects(policy["spec"]["podSelector"], pod.labels)
        for rule in policy["spec"].get("ingress", [])
        for port in rule["ports"]
        if "endPort" not in port
    ]


def _service_ports(manifests: Manifests) -> Iterator[str]:
    wanted: dict[str, set[int]] = {pod.owner: set() for pod in manifests.pods()}
    for service in manifests.of("Service"):
        name = service["metadata"]["name"]
        pods = [pod for pod in manifests.pods() if selects({"matchLabels": service["spec"]["selector"]}, pod.labels)]
        if len(pods) != 1:
            yield f"Service/{name}: leads to {len(pods)} kinds of pod"
            continue
        ports = {item["name"]: item["containerPort"] for item in pods[0].spec["containers"][0]["ports"]}
        for port in service["spec"]["ports"]:
            target = ports.get(port["targetPort"])
            policies = [policy for policy, opened in _opened(manifests, pods[0]) if opened == target]
            if len(policies) != 1:
                yield f"Service/{name}: port {port['targetPort']} is opened by {len(policies)} policies; expected one"
            if target:
                wanted[pods[0].owner].add(target)
    for pod in manifests.pods():
        expected = wanted[pod.owner] | ({8265} if pod.labels.get("ray.io/node-type") == "head" else set())
        expected |= _metrics_port(pod)
        for policy, port in _opened(manifests, pod):
            if port not in expected:
                yield f"NetworkPolicy/{policy}: opens {pod.owner} at {port}, where no Service leads"
        if pod.labels.get("ray.io/node-type") == "head" and 8265 not in [port for _, port in _opened(manifests, pod)]:
            yield f"{pod.owner}: port 8265 is opened by no policy"


def _metrics_port(pod: PodTemplate) -> set[int]:
    ports = [port for container in pod.spec["containers"] for port in container.get("ports", [])]
    return {port["containerPort"] for port in ports if port["name"] == "metrics"}


def _scraped(manifests: Manifests) -> Iterator[str]:
    """A port of metrics is open to namespaces that have the label for it, and to nobody else."""
    for pod in manifests.pods():
        for wanted in _metrics_port(pod):
            peers = [
                rule["from"]
                for policy in manifests.of("NetworkPolicy")
                if selects(policy["spec"]["podSelector"], pod.labels)
                for rule in policy["spec"].get("ingress", [])
                if wanted in [port["port"] for port in rule["ports"] if "endPort" not in port]
            ]
            if peers != [[{"namespaceSelector": {"matchLabels": {f"{ACCESS}metrics": "true"}}}]]:
                yield f"{pod.owner}: its metrics at {wanted} are open to {peers}"


def _flows_match(manifests: Manifests) -> Iterator[str]:
    """Each client's half of a flow within the cluster has the server's half, with the same ends and ports."""
    halves: dict[str, set[str]] = {"is-asked": set(), "may-be-asked": set()}
    for policy in manifests.of("NetworkPolicy"):
        match = re.fullmatch(r"(.+)-(is-asked|may-be-asked)", policy["metadata"]["name"])
        if match is None:
            continue
        spec = policy["spec"]
        rules = spec.get("ingress") if match[2] == "is-asked" else spec.get("egress")
        other = [peer for rule in rules for peer in rule.get("from", rule.get("to", []))]
        if any("ipBlock" in peer for peer in other) or not other:
            continue
        ports = sorted(port["port"] for rule in rules for port in rule["ports"])
        server, client = (
            (spec["podSelector"], other[0]["podSelector"])
            if match[2] == "is-asked"
            else (other[0]["podSelector"], spec["podSelector"])
        )
        halves[match[2]].add(f"{match[1]}: {client['matchLabels']} → {server['matchLabels']} at {ports}")
    for half in halves["is-asked"] ^ halves["may-be-asked"]:
        yield f"only one end knows of the flow {half}"


def _rights_are_used(manifests: Manifests) -> Iterator[str]:
    for pod in manifests.pods():
        environment: dict[str, str] = {}
        for container in pod.containers:
            environment |= manifests.environment(container)
        for flow, variable in ADDRESSES.items():
            may, does = f"{ACCESS}{flow}" in pod.labels, variable in environment
            if may and not does:
                yield f"{pod.owner}: may ask {flow}, and has not its address ({variable})"
            if does and not may:
                yield f"{pod.owner}: has the address of {flow} ({variable}), and may not ask it"


def _addresses_exist(manifests: Manifests) -> Iterator[str]:
    services = {
        f"{item['metadata']['name']}:{port['port']}" for item in manifests.of("Service") for port in item["spec"]["ports"]
    }
    services |= {f"{item['metadata']['name']}-head-svc:8265" for item in manifests.of("RayCluster")}
    for config in manifests.of("ConfigMap"):
        data = config["data"]
        addresses = [urlsplit(value).netloc for value in data.values() if value.startswith(("http://", "https://"))]
        addresses += [f"{data['PGHOST']}:{data['PGPORT']}"] if "PGHOST" in data else []
        for address in addresses:
            if "." not in address and address not in services:
                yield f"ConfigMap/{config['metadata']['name']}: {address} is no Service's port"
