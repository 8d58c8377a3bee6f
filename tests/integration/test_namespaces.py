"""The network that other tests disturb: who reaches whom, when, and how fast."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psutil
import pytest

from tests.infra.kubernetes import REPOSITORY
from tests.integration.namespaces import Network, ip, namespaces, network_or_skip, of_dead_processes, remove_namespaces

pytestmark = [pytest.mark.integration]

PORT = 4321
DELAY = 0.05
KILLED = """
import os, signal, subprocess, sys
from pathlib import Path
from tests.integration.namespaces import network_or_skip
with network_or_skip(["left"], Path(sys.argv[1])) as network:
    print(subprocess.Popen([*network.hosts["left"].prefix, "sleep", "600"], stdout=subprocess.DEVNULL).pid, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""
ENDED = """
import os, sys
from pathlib import Path
from tests.integration.namespaces import namespaces, network_or_skip
with network_or_skip(["left"], Path(sys.argv[1])):
    print(*[name for name in namespaces() if name.startswith(f"gkd-{os.getpid()}-")])
"""
TRY = "import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=2).close()"


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    """Three hosts, at each of which somebody accepts connections."""
    with network_or_skip(("a", "b", "c"), tmp_path_factory.mktemp("network")) as network:
        for host in network.hosts.values():
            threading.Thread(target=_accept, args=(host.listen(PORT),), daemon=True).start()
        yield network


def _accept(listener: socket.socket) -> None:
    with listener:
        while True:
            listener.accept()[0].close()


def _reaches(network: Network, one: str, other: str) -> bool:
    """By its name, and from a process that runs there."""
    command = [*network.hosts[one].prefix, sys.executable, "-c", TRY, other, str(PORT)]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def _seconds(network: Network, name: str) -> float:
    """How long it takes this machine to be connected."""
    began = time.monotonic()
    socket.create_connection((network.hosts[name].address, PORT), timeout=10).close()
    return time.monotonic() - began


def test_a_partition_is_between_the_two_alone_and_heals(network: Network) -> None:
    assert _reaches(network, "a", "b")
    with network.partition(["a"], ["b"]):
        assert not _reaches(network, "a", "b")
        assert not _reaches(network, "b", "a")
        assert _reaches(network, "a", "c")
        assert _reaches(network, "c", "b")
    assert _reaches(network, "a", "b")
    assert _reaches(network, "b", "a")


def test_nothing_tells_those_who_are_connected_of_a_partition(network: Network) -> None:
    """As when a cable is cut: no connection is refused or reset."""
    with closing(network.hosts["b"].listen(PORT + 1)) as listener:
        talk = "import socket, sys, time; c = socket.create_connection((sys.argv[1], int(sys.argv[2])));"
        talk += "[(c.sendall(b'.'), time.sleep(0.1)) for _ in range(100)]"
        command = [*network.hosts["a"].prefix, sys.executable, "-c", talk, "b", str(PORT + 1)]
        with subprocess.Popen(command) as talker, listener.accept()[0] as heard:
            heard.settimeout(1)
            assert heard.recv(1)
            with network.partition(["a"], ["b"]):
                with pytest.raises(TimeoutError):
                    while True:
                        heard.recv(1000)
                assert talker.poll() is None
            heard.settimeout(20)
            assert heard.recv(1)
            talker.kill()


def test_a_bad_link_is_slow_both_ways_and_only_that_one(network: Network) -> None:
    assert _seconds(network, "a") < 2 * DELAY
    with network.bad_link("a", DELAY, 0.0):
        assert _seconds(network, "a") >= 2 * DELAY
        assert _seconds(network, "b") < 2 * DELAY
        assert _reaches(network, "a", "c")
    assert _seconds(network, "a") < 2 * DELAY


def test_a_bad_link_loses_its_share(network: Network) -> None:
    sent = 400
    with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as here, network.bad_link("a", 0.0, 0.25):
        _seconds(network, "a")  # the address is known by now
        here.bind((network.machine, 0))
        here.settimeout(1)
        shout = "import socket, sys, time; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM);"
        shout += f"[(s.sendto(b'.', (sys.argv[1], int(sys.argv[2]))), time.sleep(0.002)) for _ in range({sent})]"
        address, port = here.getsockname()
        with subprocess.Popen([*network.hosts["a"].prefix, sys.executable, "-c", shout, address, str(port)]):
            here.settimeout(10)
            heard = len(here.recv(1))
            here.settimeout(2)
            with pytest.raises(TimeoutError):
                while True:
                    heard += len(here.recv(1))
    assert 0.65 * sent < heard < 0.85 * sent


def test_what_a_killed_run_has_left_is_removed(network: Network, tmp_path: Path) -> None:
    """With what still runs there; what belongs to a run that lives stays."""
    ours = set(namespaces())
    with subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path)], cwd=REPOSITORY, stdout=subprocess.PIPE) as killed:
        assert killed.stdout is not None
        sleeper = psutil.Process(int(killed.stdout.readline()))
        assert killed.wait() == -signal.SIGKILL
    assert {f"gkd-{killed.pid}-switch", f"gkd-{killed.pid}-left"} == set(namespaces()) - ours
    remove_namespaces(of_dead_processes())
    assert set(namespaces()) == ours
    assert f"gkd{killed.pid}:" not in ip("link")
    psutil.wait_procs([sleeper], timeout=10)
    assert not sleeper.is_running()
    assert _reaches(network, "a", "b")


def test_a_network_goes_with_its_block(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", ENDED, str(tmp_path)], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    names = done.stdout.split()
    assert len(names) == 2
    assert not set(names) & set(namespaces())
