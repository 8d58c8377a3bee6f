"""The compose file's Ray, started by its own commands on hosts with addresses of their own, of which the head has two."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from gkd_core.system.child_process import child_process
from tests.infra.compose import read_compose
from tests.infra.kubernetes import REPOSITORY
from tests.integration.hosts import Host
from tests.integration.namespaces import network_or_skip

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(1500), pytest.mark.xdist_group("ray")]

HEAD, WORKER = "ray-gcs", "ray-worker"  # the head by the name that it has in the workers' network
ADDRESSES = '--node-ip-address="${1:?ray-gcs has no address}" '
START_SECONDS = 500
RESTARTED = ["sh", "-c", 'until "$@"; do sleep 1; done', "sh"]  # on a busy machine Ray gives up on itself after half a minute
ASK = """
import json, os, sys, time
import ray
from gkd_core.cluster.room import wait_for_room
from gkd_core.errors import GkdError
ray.init(log_to_driver=False)
while len([node for node in ray.nodes() if node["Alive"]]) < 2:
    time.sleep(0.5)
started = time.monotonic()
try:
    wait_for_room("distill-proxy", 2, "cpu", float(sys.argv[1]))
    said = None
except GkdError as error:
    said = str(error)
addresses = [node["NodeManagerAddress"] for node in ray.nodes()]
print(json.dumps({"said": said, "addresses": addresses, "seconds": time.monotonic() - started}))
os._exit(0)
"""


class Ray:
    """Head and worker in namespaces; each service's command is that of the compose file."""

    def __init__(self, hosts: Mapping[str, Host], outside: str, folder: Path, stack: ExitStack) -> None:
        self.hosts, self.outside, self._folder, self._stack = hosts, outside, folder, stack
        services = read_compose()["services"]
        self.commands: dict[str, list[str]] = {name: services[name]["command"] for name in ("ray-head", WORKER)}
        # Its page plays no part here, and is most of what a head's start costs.
        self.commands["ray-head"][-1] += " --include-dashboard=false"
        self._variables = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(16), "RAY_USAGE_STATS_ENABLED": "0"}

    def start(self, host: str, command: list[str]) -> Path:
        """Run a service's command on a host, again where it ends, as compose does; gives its log."""
        log = self._folder / f"{host}.log"
        variables = {**self._variables, "RAY_TMPDIR": self._stack.enter_context(short_folder())}
        self._stack.enter_context(child_process([*self.hosts[host].prefix, *RESTARTED, *command], env=variables, log=log))
        return log

    def ask(self, minutes: float) -> dict[str, object]:
        """What a program on the head's host is told when it wants two workers, and by which addresses Ray knows its nodes."""
        command = [*self.hosts[HEAD].prefix, sys.executable, "-c", ASK, str(minutes)]
        environment = {**os.environ, **self._variables, "RAY_ADDRESS": f"{HEAD}:6379", "PYTHONPATH": str(REPOSITORY)}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=400)
        assert done.returncode == 0, done.stderr
        found: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
        return found


@contextmanager
def short_folder() -> Iterator[str]:
    """Ray's sockets need a short path."""
    with tempfile.TemporaryDirectory(prefix="gkd-r-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        yield folder


@pytest.fixture
def ray_in_compose(tmp_path: Path) -> Iterator[Ray]:
    with network_or_skip((HEAD, WORKER), tmp_path) as network, ExitStack() as stack:
        outside = network.add_second_card(HEAD)
        yield Ray(network.hosts, outside, tmp_path, stack)


def wait_for(log: Path, words: str) -> None:
    deadline = time.monotonic() + START_SECONDS
    while words not in log.read_text():
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.5)


def test_workers_reach_the_head_that_is_in_two_networks(ray_in_compose: Ray) -> None:
    ray = ray_in_compose
    wait_for(ray.start(HEAD, ray.commands["ray-head"]), "Ray runtime started")
    wait_for(ray.start(WORKER, ray.commands[WORKER]), "Ray runtime started")
    answer = ray.ask(minutes=3)
    assert answer["said"] is None
    assert answer["addresses"] and set(answer["addresses"]) == {host.address for host in ray.hosts.values()}  # type: ignore[call-overload]


def test_a_head_at_an_address_that_workers_cannot_reach_is_named_in_time(ray_in_compose: Ray) -> None:
    """As the file was: Ray chose for itself, the nodes joined, and whatever they were given to do hung without a word."""
    ray = ray_in_compose
    assert ADDRESSES in ray.commands["ray-head"][-1]
    by_itself = [part.replace(ADDRESSES, "") for part in ray.commands["ray-head"]]
    wait_for(ray.start(HEAD, by_itself), "Ray runtime started")
    wait_for(ray.start(WORKER, ray.commands[WORKER]), "Ray runtime started")
    answer = ray.ask(minutes=0.5)
    assert ray.outside in answer["addresses"]  # type: ignore[operator]
    said = str(answer["said"])
    assert said.startswith("distill-proxy: not all of Ray's nodes answered within 0.5 min (compute.start_minutes): ")
    assert f"must all reach {ray.outside}, where this program runs" in said and "--node-ip-address" in said
    assert float(str(answer["seconds"])) < 60
