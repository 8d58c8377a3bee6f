"""A node that runs pods on an engine: first sandboxes with addresses, then policies, then containers, until probes agree."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import requests

from tests.containers import kuberay
from tests.containers.engine import Engine
from tests.containers.firewall import Peer, rules, selects
from tests.containers.pods import Pod, Secrets, Volumes, command, environment, options, port
from tests.infra.kubernetes import Manifests, Tree

DOMAIN = "gkd.svc.cluster.local"
NETWORK = "gkd-test-pods"
PREFIX = "gkd-test-pod-"
# Prints the places that a connection came to, all asked at once. Who is refused by the other end has come to it.
CONNECT = """
import concurrent.futures, errno, socket, sys

def comes(place):
    host, _, port = place.rpartition(":")
    with socket.socket() as probe:
        probe.settimeout(10)
        return probe.connect_ex((host, int(port))) in (0, errno.ECONNREFUSED)

with concurrent.futures.ThreadPoolExecutor(32) as pool:
    print(*(place for place, came in zip(sys.argv[1:], pool.map(comes, sys.argv[1:])) if came))
"""


@dataclass(frozen=True)
class Range:
    """Addresses: of the network, of that the part for pods, of the node. Nobody else on this machine may have them."""

    network: str
    pods: str
    gateway: str


@dataclass
class Node:
    """Runs pods of one overlay.

    Attributes:
        images: name of an image in the manifests (without tag and digest) → one of this engine.
        gateway: the address at which the node reaches its pods and they it.
        authorities: certificates for all pods in place of their image's.
    """

    engine: Engine
    manifests: Manifests
    secrets: Secrets
    images: Mapping[str, str]
    folder: Path
    gateway: str
    authorities: Path | None = None
    addresses: dict[str, Peer] = field(default_factory=dict)
    _mounts: dict[str, dict[str, list[str]]] = field(default_factory=dict)

    def admit(self, *pods: Pod) -> None:
        """Give each an address and the names of its Services; nothing of it runs yet."""
        for pod in pods:
            names = [name for name in self._services(pod) for name in (name, f"{name}.{DOMAIN}")]
            self.add(pod.name, pod.labels, names=names)
            folder = self.folder / pod.name
            self._mounts[pod.name] = Volumes(folder, self.folder / "claims", self.manifests, self.secrets).lay_out(pod)

    def add(
        self,
        name: str,
        labels: Mapping[str, str],
        namespace: Mapping[str, str] | None = None,
        names: Sequence[str] = (),
        ip: str = "",
    ) -> None:
        """An address that holds a pod's place, or somebody else's."""
        words = [f"--network-alias={each}" for each in names] + ([f"--ip={ip}"] if ip else [])
        image = self.engine.environment["GKD_TEST_PYTHON_IMAGE"]
        name = f"{PREFIX}{name}"
        self.engine.docker("run", "--detach", f"--name={name}", f"--network={NETWORK}", *words, image, "sleep", "infinity")
        form = f"{{{{(index .NetworkSettings.Networks {NETWORK!r}).IPAddress}}}}".replace("'", '"')
        address = self.engine.docker("inspect", "--format", form, name).stdout.strip()
        self.addresses[name.removeprefix(PREFIX)] = Peer(address, labels, namespace)

    def enforce(self) -> None:
        """Put every pod's policies into its own network."""
        peers = list(self.addresses.values())
        for name, peer in self.addresses.items():
            if peer.namespace is not None:
                continue
            pid = self.engine.docker("inspect", "--format", "{{.State.Pid}}", f"{PREFIX}{name}").stdout.strip()
            for rule in rules(self.manifests, peer, peers, self.gateway):
                self.engine.command(["nsenter", f"--net=/proc/{pid}/ns/net", "iptables", "--wait", *rule])

    def run(self, pod: Pod) -> None:
        """To its end: every container ends well."""
        for container in (*pod.spec.get("initContainers", []), *pod.spec["containers"]):
            self._run(pod, container)

    def start(self, pod: Pod) -> None:
        """Until it is ready by its own probes."""
        for container in pod.spec.get("initContainers", []):
            self._run(pod, container)
        for container in pod.spec["containers"]:
            self._run(pod, container, "--detach")
        for container in pod.spec["containers"]:
            self._wait(pod, container, "startupProbe")
            self._wait(pod, container, "readinessProbe")
            assert self._answers(pod, container, container["livenessProbe"]), f"{pod.owner}: ready, and not alive"

    def restarts(self, pod: Pod) -> bool:
        """Whether its liveness probe would end it now."""
        return not all(self._answers(pod, each, each["livenessProbe"]) for each in pod.spec["containers"])

    def inside(self, pod: Pod, *words: str) -> subprocess.CompletedProcess[str]:
        """A command in a pod's first container."""
        return self.engine.docker("exec", self._name(pod, pod.spec["containers"][0]), *words, check=False)

    def reached(self, source: str, targets: Sequence[tuple[str, int]]) -> set[tuple[str, int]]:
        """The ports of others to which a connection from an address is let through, be it to nobody."""
        places = [f"{self.addresses[name].address}:{number}" for name, number in targets]
        answer = self.engine.docker("exec", f"{PREFIX}{source}", "python3", "-c", CONNECT, *places)
        return {target for target, place in zip(targets, places, strict=True) if place in answer.stdout.split()}

    def _services(self, pod: Pod) -> Iterator[str]:
        for service in self.manifests.of("Service"):
            if selects({"matchLabels": service["spec"]["selector"]}, pod.labels):
                for item in service["spec"]["ports"]:
                    assert item["port"] == port(pod.spec["containers"][0], {"port": item["targetPort"]}), (
                        "a Service that moves a port"
                    )
                yield service["metadata"]["name"]
        if pod.labels.get("ray.io/node-type") == "head":
            yield kuberay.service(pod.labels["ray.io/cluster"])

    def _name(self, pod: Pod, container: Tree) -> str:
        return f"{PREFIX}{pod.name}.{container['name']}"

    def _run(self, pod: Pod, container: Tree, *how: str) -> None:
        variables = environment(container, self.manifests, self.secrets)
        words = options(container, pod, self._mounts[pod.name], variables, os.cpu_count() or 1)
        if self.authorities:
            words.append(f"--mount=type=bind,source={self.authorities},target=/etc/ssl/certs/ca-certificates.crt,readonly")
        entry, rest = command(container, variables)
        place = [f"--name={self._name(pod, container)}", f"--network=container:{PREFIX}{pod.name}"]
        image = self.images[container["image"].partition("@")[0].partition(":")[0].rpartition("/")[2]]
        self.engine.docker("run", *how, *place, *words, *entry, image, *rest, seconds=600)

    def _wait(self, pod: Pod, container: Tree, kind: str) -> None:
        probe = container[kind]
        tries = probe.get("failureThreshold", 3) if kind == "startupProbe" else 30
        for _ in range(tries):
            if self._answers(pod, container, probe):
                return
            time.sleep(probe.get("periodSeconds", 10))
        logs = self.engine.docker("logs", "--tail", "60", self._name(pod, container), check=False)
        raise AssertionError(f"{pod.owner}: {container['name']}: {kind}: no\n{logs.stdout}\n{logs.stderr}")

    def _answers(self, pod: Pod, container: Tree, probe: Tree) -> bool:
        """Asked from the node, as its agent asks; or a command within."""
        seconds = probe.get("timeoutSeconds", 1)
        if "exec" in probe:
            return self.engine.docker("exec", self._name(pod, container), *probe["exec"]["command"], check=False).returncode == 0
        (kind,) = probe.keys() & {"httpGet", "tcpSocket"}
        place = (self.addresses[pod.name].address, port(container, probe[kind]))
        try:
            if kind == "tcpSocket":
                socket.create_connection(place, seconds).close()
                return True
            answer = requests.get(f"http://{place[0]}:{place[1]}{probe[kind]['path']}", timeout=seconds)
            return 200 <= answer.status_code < 400
        except (OSError, requests.RequestException):
            return False


@contextmanager
def network(engine: Engine, place: Range) -> Iterator[None]:
    """A network whose pods have addresses of a part of it; with the block it goes, and whoever is in it."""
    clear(engine)
    words = [f"--subnet={place.network}", f"--ip-range={place.pods}", f"--gateway={place.gateway}"]
    engine.docker("network", "create", *words, NETWORK)
    try:
        yield
    finally:
        clear(engine)


def clear(engine: Engine) -> None:
    """End and remove the containers of these tests, those of a run that was killed too."""
    names = engine.docker("ps", "--all", "--quiet", f"--filter=name=^{PREFIX}").stdout.split()
    if names:
        engine.docker("rm", "--force", "--volumes", *names)
    engine.docker("network", "rm", NETWORK, check=False)


def missing_tools() -> list[str]:
    return [name for name in ("nsenter", "iptables", "openssl") if shutil.which(name) is None]
