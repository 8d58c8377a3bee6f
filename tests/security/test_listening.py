"""Every process tree that we start listens on loopback alone, and Ray's ports want the key of their own cluster.

`make up` has its own test beside its others: tests/integration/test_platform.py.
"""

from __future__ import annotations

import os
import secrets
import shutil
import stat
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from flows.server import prefect_server
from gkd_core.cluster.local import LocalCluster
from gkd_core.cluster.own_cluster import PREFIX
from gkd_core.settings import dump_settings, settings_from_tree
from gkd_core.stages import Recipe, run_stage
from gkd_core.system.loopback import free_port
from tests.security.listening import Listener, all_of_ray, beyond_loopback, listening, reachable, run_of, tree, watch

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

GKD = "import sys; sys.argv[0] = 'gkd'; from gkd_core.cli import main; main()"
# Ray is imported before anything of ours, as the stage `evaluate` and a notebook have it.
CONNECTED = """
import ray
from gkd_core.cluster.connect import connected
with connected(1):
    print(ray.get(ray.remote(lambda: 42).remote()), ray.get_runtime_context().gcs_address, flush=True)
    input()
"""
# A worker of a group whose nodes are several, as `GroupBackend` has it; this node's address is one of loopback's.
MEETING = """
import sys
from datetime import timedelta
import ray, torch
from gkd_core.cluster import group as ray_group
ray.util.get_node_ip_address = lambda: "127.0.0.5"
rank, place = int(sys.argv[1]), ("127.0.0.5", int(sys.argv[2]))
if rank == 0:
    place = ray_group._listen()
    print(place[1], flush=True)
ray_group._join_by_network(place, "gloo", rank, 2, timedelta(seconds=200))
total = torch.ones(1)
torch.distributed.all_reduce(total)
print(int(total), flush=True)
input()
"""
GCS = "/ray.rpc.NodeInfoGcsService/GetAllNodeInfo"
# One of each service that Ray's processes have, and none that would harm if it were answered.
METHODS = (
    GCS,
    "/ray.rpc.NodeManagerService/GetNodeStats",
    "/ray.rpc.ObjectManagerService/Pull",
    "/ray.rpc.CoreWorkerService/GetCoreWorkerStats",
)


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder of a short path, for the sake of Ray's sockets."""
    folder = Path(tempfile.mkdtemp(prefix="gkd-t-"))
    (folder / "home").mkdir()
    (folder / "tmp").mkdir()
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def environment(place: Path) -> dict[str, str]:
    """Nothing that would name a cluster, an interface or a key; a home and a folder for temporary files of one's own."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "GLOO_", "NCCL_"))}
    return {**kept, "HOME": str(place / "home"), "TMPDIR": str(place / "tmp")}


def token_of(root: int) -> str:
    """The key of the cluster that runs below a process."""
    (raylet,) = [process for process in tree(root) if process.name() == "raylet"]
    return raylet.environ()["RAY_AUTH_TOKEN"]


def code_of(port: int, method: str, token: str | None) -> grpc.StatusCode:
    """How a port of loopback answers an empty question."""
    metadata = [] if token is None else [("authorization", f"Bearer {token}")]
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        try:
            channel.unary_unary(method)(b"", metadata=metadata, timeout=20)
        except grpc.RpcError as error:
            code: grpc.StatusCode = error.code()
            return code
        return grpc.StatusCode.OK


def http_status(port: int, path: str, token: str | None) -> int | None:
    """How a port of loopback answers a POST; None where it does not speak HTTP."""
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", data=b"", headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return None


def test_training_on_two_workers(environment: dict[str, str], place: Path, tmp_path: Path, tiny_tree: dict[str, Any]) -> None:
    """`gkd run`, which starts a cluster of its own, all the while that it trains."""
    distill = tiny_tree["distill_proxy"] | {"updates": 60, "warm_start": {"updates": 10}}
    settings = settings_from_tree(tiny_tree | {"distill_proxy": distill, "compute": tiny_tree["compute"] | {"workers": 2}})
    run_stage(Recipe.of(settings), Recipe.of(settings).find("prepare-data"), tmp_path)
    (tmp_path / "params.yaml").write_text(dump_settings(settings))
    modes: dict[str, int] = {}
    attacked: set[Listener] = set()
    got_through: list[Listener] = []

    def look() -> None:
        modes.update({str(folder): stat.S_IMODE(folder.stat().st_mode) for folder in (place / "tmp").glob(f"{PREFIX}*")})
        workers = run_of(listening(tree(process.pid)), "RayTrainWorker") - attacked
        got_through.extend(worker for worker in workers if reachable(worker, "127.0.0.2"))
        attacked.update(workers)

    command = [sys.executable, "-c", GKD, "run", "distill-proxy"]
    with subprocess.Popen(command, cwd=tmp_path, env=environment) as process:
        found = watch(process, look)
    assert process.returncode == 0
    assert beyond_loopback(found) == []
    assert got_through == []
    assert len(run_of(found, "RayTrainWorker")) >= 4, "of each worker Ray's port, and a port of the exchange of gradients"
    assert all(run_of(found, program) for program in ("gcs_server", "raylet", "DashboardAgent", "RuntimeEnvAgent"))
    assert len(modes) == 2, "the cluster's folder, and that of the group's store"
    assert set(modes.values()) == {0o700}
    assert list((place / "home").glob(".ray")) == []
    assert list((place / "tmp").glob(f"{PREFIX}*")) == []


def test_two_clusters_of_one_user_have_a_token_each(environment: dict[str, str], place: Path) -> None:
    command = [sys.executable, "-c", CONNECTED]
    pipe = subprocess.PIPE
    foreign = {"RAY_AUTH_MODE": "disabled", "RAY_AUTH_TOKEN_PATH": str(place / "absent")}  # a user's own, for another cluster
    processes = [
        subprocess.Popen(command, env={**environment, **variables}, stdin=pipe, stdout=pipe, text=True)
        for variables in ({}, foreign)
    ]
    try:
        lines = []
        for process in processes:
            assert process.stdout is not None
            lines.append(process.stdout.readline().split())
        assert [line[0] for line in lines] == ["42", "42"], "each works, at the same time"
        ports = [int(address.rpartition(":")[2]) for _, address in lines]
        tokens = [token_of(process.pid) for process in processes]
        for process in processes:
            found = all_of_ray(process.pid)
            assert beyond_loopback(found) == []
        answers = {(port, token): code_of(ports[port], GCS, tokens[token]) for port in range(2) for token in range(2)}
        refused, let_in = grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.OK
        assert answers == {(0, 0): let_in, (0, 1): refused, (1, 0): refused, (1, 1): let_in}
        assert list((place / "home").glob(".ray")) == []
        written = [path for path in place.rglob("*") if path.is_file()]
        assert len(written) > 10, "Ray's logs, at least"
        assert [path for path in written for token in tokens if token.encode() in path.read_bytes()] == []
    finally:
        for process in processes:
            process.communicate("\n")
    assert [process.returncode for process in processes] == [0, 0]
    assert list((place / "tmp").glob(f"{PREFIX}*")) == []


def test_no_port_of_a_flows_cluster_answers_without_its_token(
    environment: dict[str, str], place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(tempfile, "tempdir", str(place / "tmp"))
    cluster = LocalCluster(1, ("distill-proxy",), place / "ray.log")
    try:
        cluster.before("distill-proxy")
        access = cluster.environment("distill-proxy")
        assert access["RAY_AUTH_TOKEN"] == token_of(os.getpid())
        (folder,) = (place / "tmp").glob(f"{PREFIX}*")
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700, "Ray opens to everybody the folder that it is given"
        found = all_of_ray(os.getpid())
        assert beyond_loopback(found) == []
        for token in (None, secrets.token_hex(32)):
            answers = {(item, method): code_of(item.port, method, token) for item in found for method in METHODS}
            assert [key for key, code in answers.items() if code == grpc.StatusCode.OK] == []
            assert grpc.StatusCode.UNAUTHENTICATED in answers.values()
        gcs = int(access["RAY_ADDRESS"].rpartition(":")[2])
        assert code_of(gcs, GCS, access["RAY_AUTH_TOKEN"]) == grpc.StatusCode.OK
        (agent,) = run_of(found, "RuntimeEnvAgent")  # it installs packages and runs commands for whoever asks
        assert http_status(agent.port, "/get_or_create_runtime_env", None) == 401
        assert http_status(agent.port, "/get_or_create_runtime_env", access["RAY_AUTH_TOKEN"]) not in (None, 401, 403)
    finally:
        cluster.stop()
    assert list((place / "home").glob(".ray")) == []


def test_workers_of_several_nodes_listen_at_their_nodes_address_alone(environment: dict[str, str]) -> None:
    def start(rank: int, port: int) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", MEETING, str(rank), str(port)]
        return subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def line(process: subprocess.Popen[str]) -> int:
        assert process.stdout is not None
        return int(process.stdout.readline())

    first = start(0, 0)
    port = line(first)
    second = start(1, port)
    try:
        assert [line(process) for process in (first, second)] == [2, 2]
        (store,) = [item for item in listening(tree(first.pid)) if item.port == port]
        assert store.address == "127.0.0.5"
        assert reachable(store, "127.0.0.5")
        assert not reachable(store, "127.0.0.6")
        assert beyond_loopback(listening([*tree(first.pid), *tree(second.pid)])) == []
    finally:
        for process in (first, second):
            process.communicate("\n")


def test_the_prefect_server_of_a_flow_run_here(tmp_path: Path) -> None:
    with prefect_server(tmp_path) as server:
        server.wait()
        found = listening(tree(os.getpid()))
        assert run_of(found, "flows.prefect_app")
        assert beyond_loopback(found) == []


def test_what_is_watched_by_prometheus(tmp_path: Path) -> None:
    port = free_port()
    command = [sys.executable, "-c", GKD, "metrics", "serve", "--port", str(port)]
    process = subprocess.Popen(command, cwd=tmp_path)
    try:
        while not (found := listening(tree(process.pid))):
            assert process.poll() is None
        assert [(item.address, item.port) for item in found] == [("127.0.0.1", port)]
    finally:
        process.terminate()
        process.wait()


def test_a_listener_on_every_interface_is_found() -> None:
    """So the tests above can fail."""
    opened = "import socket; t = socket.create_server(('', 0)); u = socket.socket(type=socket.SOCK_DGRAM); u.bind(('', 0))"
    command = [sys.executable, "-c", f"{opened}; print(flush=True); input()"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        found = beyond_loopback(listening(tree(process.pid)))
        assert [(item.kind, item.address) for item in found] == [("SOCK_DGRAM", "0.0.0.0"), ("SOCK_STREAM", "0.0.0.0")]
        (server,) = [item for item in found if item.kind == "SOCK_STREAM"]
        assert reachable(server, "127.0.0.2")
        process.communicate(b"\n")
