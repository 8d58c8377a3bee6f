"""A Ray cluster of several hosts on one machine: each has an address, a disk and a key of the store of its own."""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from subprocess import Popen

import psutil

from gkd_core.cluster.own_cluster import plain_python
from gkd_core.system.child_process import child_process
from gkd_core.system.environment import NO_PROXY
from gkd_core.system.loopback import free_port
from tests.integration.hosts import HEAD, NODES, ON_LOOPBACK, Hosts

START_SECONDS = 180
STARTED = "Ray runtime started"
QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0",
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
}


class RayHosts:
    """A head that takes no work, as the manifests have it, and nodes that do.

    Attributes:
        address: of the Jobs API.
        gcs: by which Ray's own processes find the head.
        access: variables that let one in.
        scratch: the folder of each host's own disk.
        sessions: where Ray keeps each host's own files, logs among them; its sockets need so short a path.
    """

    def __init__(self, folder: Path, store: Mapping[str, str], head_cpus: int, hosts: Hosts) -> None:
        self.folder = folder
        self._hosts = hosts
        self.scratch = folder / "scratch"
        self.sessions = Path(tempfile.mkdtemp(prefix="gkd-hosts-"))
        token = folder / "ray-token"
        token.write_text(secrets.token_hex(32))
        token.chmod(0o600)
        self.access = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token)}
        self.access |= dict.fromkeys(NO_PROXY, hosts[HEAD].address)
        self._ports = {
            name: free_port() for name in ("port", "dashboard-port", "ray-client-server-port", "dashboard-agent-listen-port")
        }
        self.address = f"http://{hosts[HEAD].address}:{self._ports['dashboard-port']}"
        self.gcs = f"{hosts[HEAD].address}:{self._ports['port']}"
        self._environment = {**store, **self.access, **QUIET, "GKD_SCRATCH": str(self.scratch)}
        self._head_cpus = head_cpus
        self._processes: dict[str, Popen[bytes]] = {}
        self._stacks: dict[str, ExitStack] = {}

    @property
    def token(self) -> str:
        return Path(self.access["RAY_AUTH_TOKEN_PATH"]).read_text()

    def start_head(self) -> None:
        """Start the head, and wait until its Jobs API answers."""
        ports = [f"--{name}={port}" for name, port in self._ports.items()]
        self._start(HEAD, ["--head", f"--num-cpus={self._head_cpus}", *ports, f"--dashboard-host={self._hosts[HEAD].address}"])
        self._wait()

    def start_node(self, number: int) -> None:
        """Start a node with one core."""
        self._start(NODES[number - 1], [f"--address={self.gcs}", "--num-cpus=1"])

    def kill_node(self, number: int) -> None:
        """Strike a node down with all that runs on it."""
        name = NODES[number - 1]
        for process in psutil.Process(self._processes[name].pid).children(recursive=True):
            process.kill()
        self._stacks.pop(name).close()

    def stop(self) -> None:
        for name in sorted(self._stacks, reverse=True):  # nodes before their head
            self._stacks[name].close()
        shutil.rmtree(self.sessions, ignore_errors=True)

    def ask(self, path: str, token: str | None) -> bytes:
        """The answer of the head's API."""
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        unproxied = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with unproxied.open(urllib.request.Request(f"{self.address}{path}", headers=headers), timeout=30) as answer:
            return bytes(answer.read())

    def _start(self, name: str, arguments: list[str]) -> None:
        stack = self._stacks[name] = ExitStack()
        session = self.sessions / name
        session.mkdir(exist_ok=True)
        host = self._hosts[name]
        python = plain_python(self.sessions)
        ray = [python, str(Path(python).with_name("ray")), "start"]
        command = [*host.prefix, *ray, "--block", "--disable-usage-stats", f"--temp-dir={session}"]
        command += [f"--node-ip-address={host.address}", *arguments]
        log = self.folder / f"{name}.log"
        self._processes[name] = stack.enter_context(child_process(command, env=self._environment, log=log))

    def _wait(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while True:
            log = (self.folder / f"{HEAD}.log").read_text()
            # Where the machine has much to do, the API may answer on a head that ends a moment later.
            if STARTED in log and self._answers():
                return
            assert time.monotonic() < deadline and self._processes[HEAD].poll() is None, log
            time.sleep(0.5)

    def _answers(self) -> bool:
        try:
            return bool(self.ask("/api/jobs/", self.token))
        except OSError:
            return False


@contextmanager
def ray_hosts(
    folder: Path, store: Mapping[str, str], head_cpus: int = 0, nodes: int = 0, hosts: Hosts = ON_LOOPBACK
) -> Iterator[RayHosts]:
    """Head and nodes while the block lasts.

    Args:
        store: variables by which the nodes reach the S3 store.
    """
    folder.mkdir(parents=True, exist_ok=True)
    cluster = RayHosts(folder, {**store, "PATH": os.environ["PATH"]}, head_cpus, hosts)
    try:
        cluster.start_head()
        for number in range(1, nodes + 1):
            cluster.start_node(number)
        yield cluster
    finally:
        cluster.stop()
