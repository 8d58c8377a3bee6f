"""Both overlays' pods, started as Kubernetes would start them, ready by their own probes, behind their own network policies."""

from __future__ import annotations

import os
import re
import secrets
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml

from tests.containers import kuberay
from tests.containers.conftest import MARKS, Images
from tests.containers.engine import REPOSITORY, Engine
from tests.containers.kuberay import ray_pods
from tests.containers.node import NETWORK, PREFIX, Node, Range, missing_tools, network
from tests.containers.pods import Pod, pod_of, secrets_of
from tests.infra.kubernetes import MANIFESTS, Manifests, render, render_prod

pytestmark = MARKS

DEV = Range("198.51.100.0/24", "198.51.100.0/25", "198.51.100.254")
# overlays/prod/outside.yaml has addresses that are nobody's; a machine may have them all the same, so ours take their place.
NOBODYS, OURS = "192.0.2.", "203.0.113."
PROD = Range("203.0.113.0/24", "203.0.113.128/26", "203.0.113.254")
DATABASE, STORE, ELSEWHERE = "203.0.113.10", "203.0.113.70", "203.0.113.200"
CLIENTS = {"prefect-worker", "deploy", "metrics"}
RAY_HEAD, RAY_WORKER = "gkd-head", "gkd-cpu-0"
# Who reaches what: said here a second time, as people would say it.
REACHED_IN_DEV = {
    ("prefect-server", 4200): CLIENTS,
    ("mlflow", 5000): CLIENTS,
    ("postgres", 5432): {"prefect-server", "mlflow", "bootstrap"},
    ("store", 8333): {"mlflow", "prefect-worker", "bootstrap", RAY_HEAD, RAY_WORKER},
    (RAY_HEAD, 8265): {"prefect-worker", RAY_WORKER},
    (RAY_HEAD, 6379): {RAY_WORKER},
    (RAY_HEAD, 8080): {RAY_WORKER, "prometheus"},
    (RAY_HEAD, 22): set(),
    (RAY_WORKER, 10002): {RAY_HEAD},
    ("metrics", 9464): {"prometheus"},
    ("postgres", 22): set(),
}
REACHED_IN_PROD = {
    ("prefect-server", 4200): CLIENTS,
    ("mlflow", 5000): CLIENTS,
    ("database", 5432): {"prefect-server", "mlflow", "bootstrap"},
    ("store", 443): {"mlflow", "prefect-worker", "bootstrap", RAY_HEAD},
    ("database", 443): set(),
    ("elsewhere", 443): set(),
    (RAY_HEAD, 8265): {"prefect-worker"},
    (RAY_HEAD, 8080): {"prometheus"},
    ("metrics", 9464): {"prometheus"},
}


@pytest.fixture(scope="module", autouse=True)
def _tools() -> None:
    tools = missing_tools()
    if tools or os.geteuid() != 0:
        pytest.skip(f"root is needed, and {', '.join(tools) or 'nothing else'}")


def make_secrets(folder: Path) -> dict[str, dict[str, bytes]]:
    """Those of infra/secrets.sh, and Ray's token, which KubeRay makes."""
    subprocess.run([REPOSITORY / "infra/secrets.sh", folder], check=True, capture_output=True)
    script = REPOSITORY / "infra/kubernetes/secrets.sh"
    text = subprocess.run([script, folder], check=True, capture_output=True, text=True).stdout
    return secrets_of(list(yaml.safe_load_all(text))) | {"gkd": {kuberay.TOKEN: secrets.token_hex(32).encode()}}


def all_pods(manifests: Manifests, workers: int) -> dict[str, Pod]:
    plain = [pod_of(manifests, item) for item in manifests.pods() if not item.owner.startswith("RayCluster/")]
    return {pod.name: pod for pod in (*plain, *ray_pods(manifests, workers))}


@contextmanager
def node_of(
    engine: Engine, place: Range, manifests: Manifests, images: dict[str, str], folder: Path, authorities: Path | None = None
) -> Iterator[Node]:
    with network(engine, place):
        yield Node(engine, manifests, make_secrets(folder / "secrets"), images, folder / "volumes", place.gateway, authorities)


def surround(node: Node) -> None:
    """Who is there besides: a pod without a label, and two of other namespaces."""
    node.add("stranger", {})
    node.add("prometheus", {"app": "prometheus"}, namespace={"access.gkd/metrics": "true"})
    node.add("neighbour", {"access.gkd/prefect": "true", "access.gkd/store": "true"}, namespace={})


@pytest.fixture(scope="module")
def dev(
    engine: Engine, stand_ins: dict[str, str], images: Images, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Node, dict[str, Pod]]]:
    manifests = render(MANIFESTS / "overlays" / "dev")
    pods = all_pods(manifests, workers=1)
    all_images = stand_ins | {"gkd-service": images.service, "gkd-worker": images.worker}
    with node_of(engine, DEV, manifests, all_images, tmp_path_factory.mktemp("dev")) as node:
        node.admit(*pods.values())
        surround(node)
        node.enforce()
        yield node, pods


def reached(node: Node, targets: dict[tuple[str, int], set[str]]) -> dict[tuple[str, int], set[str]]:
    outside = {"database", "elsewhere"} | ({"store"} if "database" in node.addresses else set())
    sources = node.addresses.keys() - outside
    came = {each: node.reached(each, [target for target in targets if target[0] != each]) for each in sources}
    return {target: {each for each, places in came.items() if target in places} for target in targets}


def test_dev_lets_through_what_its_policies_allow_and_nothing_else(dev: tuple[Node, dict[str, Pod]]) -> None:
    assert reached(dev[0], REACHED_IN_DEV) == REACHED_IN_DEV


def start_all(node: Node, pods: dict[str, Pod], first: tuple[str, ...], ray: tuple[str, ...]) -> None:
    for name in first:
        node.start(pods[name])
    node.run(pods["bootstrap"])
    for name in ("prefect-server", "mlflow", *ray):
        node.start(pods[name])
    node.run(pods["deploy"])
    for name in ("metrics", "prefect-worker"):
        node.start(pods[name])


def test_dev_starts_and_is_ready_by_its_own_probes(dev: tuple[Node, dict[str, Pod]]) -> None:
    node, pods = dev
    start_all(node, pods, ("postgres", "store"), (RAY_HEAD, RAY_WORKER))
    running = [pod for name, pod in pods.items() if name not in ("bootstrap", "deploy")]
    assert [pod.owner for pod in running if node.restarts(pod)] == []
    check_confinement(node, [pods[name] for name in ("mlflow", "prefect-worker", RAY_HEAD)])
    # The worker's node is part of the head's cluster, found by the Service's name and let in by the token.
    alive = (
        "import ray; ray.init(address='auto', log_to_driver=False); print('nodes', sum(node['Alive'] for node in ray.nodes()))"
    )
    assert "nodes 2" in node.inside(pods[RAY_HEAD], "python", "-c", alive).stdout


def check_confinement(node: Node, pods: list[Pod]) -> None:
    for pod in pods:
        status = node.inside(pod, "cat", "/proc/1/status").stdout
        assert re.search(r"^Uid:\t10001\t10001", status, re.MULTILINE), pod.owner
        assert re.search(r"^CapEff:\t0+$", status, re.MULTILINE), pod.owner
        assert re.search(r"^NoNewPrivs:\t1$", status, re.MULTILINE), pod.owner
        assert re.search(r"^Seccomp:\t2$", status, re.MULTILINE), pod.owner
        assert "Read-only file system" in node.inside(pod, "touch", "/opt/file").stderr, pod.owner
        assert node.inside(pod, "touch", "/home/gkd/file", "/tmp/file").returncode == 0, pod.owner


def certificate(folder: Path) -> Path:
    """One for both outside services, which is its own authority."""
    folder.mkdir(mode=0o755)
    names = "subjectAltName=DNS:database.example.com,DNS:s3.example.com"
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-days",
        "2",
        "-subj",
        "/CN=gkd-test",
        "-addext",
        names,
    ]
    subprocess.run([*command, "-keyout", "key", "-out", "certificate"], cwd=folder, check=True, capture_output=True)
    os.chown(folder / "key", 70, 70)
    (folder / "key").chmod(0o600)
    return folder


@pytest.fixture(scope="module")
def prod(
    engine: Engine, stand_ins: dict[str, str], images: Images, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Node, dict[str, Pod]]]:
    folder = tmp_path_factory.mktemp("prod")
    manifests = Manifests(yaml.safe_load(yaml.safe_dump(render_prod(folder / "manifests").objects).replace(NOBODYS, OURS)))
    tls = certificate(folder / "tls")
    # As infra/README.md says for authorities of one's own: mounted, and named to AWS's clients too.
    manifests.named("ConfigMap", "store-client")["data"]["AWS_CA_BUNDLE"] = "/etc/ssl/certs/ca-certificates.crt"
    pods = all_pods(manifests, workers=0)
    ours = {"gkd-service": images.service, "gkd-worker": images.worker}
    with node_of(engine, PROD, manifests, ours, folder, tls / "certificate") as node:
        serve_outside(node, stand_ins, tls)
        node.admit(*pods.values())
        surround(node)
        node.enforce()
        yield node, pods


def serve_outside(node: Node, images: dict[str, str], tls: Path) -> None:
    """Database and store at the addresses that the overlay has for them, by TLS alone."""
    for name, ip, names in (
        ("database", DATABASE, ["database.example.com"]),
        ("store", STORE, ["s3.example.com"]),
        ("elsewhere", ELSEWHERE, []),
    ):
        node.add(name, {}, namespace={}, names=names, ip=ip)
    password = node.folder / "database-password"
    node.folder.mkdir(exist_ok=True)
    password.write_bytes(node.secrets["database-admin"]["password"])
    mount = f"--mount=type=bind,source={tls},target=/tls,readonly"
    word = [f"--mount=type=bind,source={password},target=/password,readonly", "--env=POSTGRES_PASSWORD_FILE=/password"]
    data = ["--env=PGDATA=/var/lib/postgresql/data/15", "--env=POSTGRES_INITDB_ARGS=--auth=scram-sha-256", "--user=70:70"]
    data += ["--tmpfs=/var/run/postgresql:mode=1777"]
    ssl = ["-c", "ssl=on", "-c", "ssl_cert_file=/tls/certificate", "-c", "ssl_key_file=/tls/key"]
    for name, image, words, rest in (
        ("database", images["postgres"], [*word, *data], ssl),
        ("store", images["seaweedfs"], [], ["/tls/certificate", "/tls/key"]),
    ):
        place = [f"--name={PREFIX}{name}.server", f"--network=container:{PREFIX}{name}"]
        node.engine.docker("run", "--detach", *place, mount, *words, image, *rest)


def test_prod_lets_through_what_its_policies_allow_and_nothing_else(prod: tuple[Node, dict[str, Pod]]) -> None:
    assert reached(prod[0], REACHED_IN_PROD) == REACHED_IN_PROD


def test_prod_starts_and_is_ready_by_its_own_probes_with_tls_outside(prod: tuple[Node, dict[str, Pod]]) -> None:
    node, pods = prod
    start_all(node, pods, (), (RAY_HEAD,))
    running = [pod for name, pod in pods.items() if name not in ("bootstrap", "deploy")]
    assert [pod.owner for pod in running if node.restarts(pod)] == []
    check_confinement(node, [pods["mlflow"], pods["prefect-worker"]])


def test_the_network_is_gone_with_its_pods(engine: Engine) -> None:
    with network(engine, DEV):
        image = engine.environment["GKD_TEST_PYTHON_IMAGE"]
        engine.docker("run", "--detach", f"--name={PREFIX}left", f"--network={NETWORK}", image, "sleep", "infinity")
    assert engine.docker("ps", "--all", "--quiet", f"--filter=name={PREFIX}").stdout == ""
