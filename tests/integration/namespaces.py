"""Hosts with addresses of their own on one machine: network namespaces at a switch, whose links can be cut and made bad.

Each host is a namespace with one card (`eth0`) at the switch, which is a namespace too, so that no rule of this machine's
firewall holds between hosts. This machine has a card at it as well, to start what runs there and to ask how it is. No host has
a way out. All of it is named by our process: what a killed run has left is removed by the next.
"""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from gkd_core.system.child_process import child_process
from tests.infra.kubernetes import REPOSITORY
from tests.integration.hosts import Host

NAME = re.compile(r"gkd-(\d+)-[\w-]+")
CARD = "eth0"
SWITCH, LAN = "switch", "lan"
NOBODY = "02:00:00:00:00:01"  # a card that there is not
SECOND_CARD = "eth1"
CLONE_NEWNET = 0x40000000
NAMES = 'mount --bind "$0/hosts" /etc/hosts && mount --bind "$0/resolv.conf" /etc/resolv.conf && exec "$@"'
# gRPC asks a server of names even for those that /etc/hosts has, and waits: here nobody listens, which it hears at once.
NO_SERVER_OF_NAMES = "nameserver 127.0.0.1\n"


@dataclass(frozen=True)
class Namespace(Host):
    """A host that is one. Its name is that of the namespace."""

    name: str = ""

    def listen(self, port: int) -> socket.socket:
        # A thread can be in a namespace of its own; a socket stays in that in which it was made.
        with ThreadPoolExecutor(1) as thread:
            return thread.submit(self._listen, port).result()

    def _listen(self, port: int) -> socket.socket:
        with Path("/run/netns", self.name).open() as place:
            libc = ctypes.CDLL(None, use_errno=True)
            if libc.setns(place.fileno(), CLONE_NEWNET) != 0:
                raise OSError(ctypes.get_errno(), f"{self.name}: cannot be entered")
        return super().listen(port)


class Network:
    """The switch and the hosts at it.

    Attributes:
        hosts: by their short names, which each host can look up as well.
        machine: the address by which hosts find this machine.
    """

    def __init__(self, names: Iterable[str], folder: Path) -> None:
        self._id = f"gkd-{os.getpid()}"
        # Of the addresses that are kept for tests of networks, those that no other run has.
        used, own = ip("-oneline", "address"), os.getpid()
        block = next(number % 256 for number in range(own, own + 256) if f" 198.18.{number % 256}." not in used)
        self._inner, self._outer = f"198.18.{block}", f"198.19.{block}"
        self.machine = f"{self._inner}.1"
        self._names = folder / "names"
        self._bad = ExitStack()
        self.hosts = {name: self._host(name, number) for number, name in enumerate(names, 11)}
        lines = [f"{host.address} {name}" for name, host in self.hosts.items()]
        self._names.mkdir()
        (self._names / "hosts").write_text("\n".join(["127.0.0.1 localhost", *lines, ""]))
        (self._names / "resolv.conf").write_text(NO_SERVER_OF_NAMES)

    def _host(self, name: str, number: int) -> Namespace:
        namespace = f"{self._id}-{name}"
        prefix = ("ip", "netns", "exec", namespace, "sh", "-c", NAMES, str(self._names))
        return Namespace(f"{self._inner}.{number}", prefix, namespace)

    def make(self) -> None:
        """Make all of it."""
        self._namespace(SWITCH)
        self._ip(SWITCH, "link", "add", LAN, "type", "bridge")
        self._ip(SWITCH, "link", "set", LAN, "up")
        for name, host in self.hosts.items():
            self._namespace(name)
            self._ip(SWITCH, "link", "add", "name", name, "type", "veth", "peer", "name", CARD, "netns", f"{self._id}-{name}")
            self._plug_in(name, LAN)
            self._ip(name, "address", "add", f"{host.address}/24", "dev", CARD)
            self._ip(name, "link", "set", CARD, "up")
        self._join()

    def _namespace(self, name: str) -> None:
        ip("netns", "add", f"{self._id}-{name}")
        self._ip(name, "link", "set", "lo", "up")

    def _join(self) -> None:
        """Give this machine a card too."""
        card = self._card
        ip("link", "add", card, "type", "veth", "peer", "name", "machine", "netns", f"{self._id}-{SWITCH}")
        ip("address", "add", f"{self.machine}/24", "dev", card)
        ip("link", "set", card, "up")
        self._plug_in("machine", LAN)

    def leave(self) -> None:
        """Take this machine's card away: with the switch it would go too, but some time later."""
        subprocess.run(["ip", "link", "del", "dev", self._card], capture_output=True, check=False)  # it may not be made yet

    @property
    def _card(self) -> str:
        return self._id.replace("-", "")

    def add_second_card(self, name: str) -> str:
        """Give a host an address in a network that no other host is in, where its default route leads; says which."""
        address = self.hosts[name].address.replace(self._inner, self._outer)
        self._ip(SWITCH, "link", "add", "published", "type", "veth", "peer", "name", SECOND_CARD, "netns", f"{self._id}-{name}")
        self._ip(SWITCH, "link", "set", "published", "up")
        self._ip(name, "address", "add", f"{address}/24", "dev", SECOND_CARD)
        self._ip(name, "link", "set", SECOND_CARD, "up")
        self._ip(name, "route", "add", "default", "via", f"{self._outer}.1")
        return address

    @contextmanager
    def partition(self, one: Iterable[str], other: Iterable[str]) -> Iterator[None]:
        """While the block lasts, what hosts of one side send to those of the other is lost without a word, and back."""
        pairs = [(a, b) for a in one for b in other]
        try:
            for a, b in pairs:
                self._neighbour("replace", a, b, "lladdr", NOBODY, "nud", "permanent")
                self._neighbour("replace", b, a, "lladdr", NOBODY, "nud", "permanent")
            yield
        finally:
            for a, b in pairs:
                self._neighbour("del", a, b)
                self._neighbour("del", b, a)

    def _neighbour(self, action: str, at: str, of: str, *how: str) -> None:
        self._ip(at, "neighbour", action, self.hosts[of].address, *how, "dev", CARD)

    @contextmanager
    def bad_link(self, name: str, delay: float, loss: float) -> Iterator[None]:
        """While the block lasts, each frame from and to a host comes so many seconds late, and so great a share of them never.

        By the kernel's netem where it has that; else the frames pass through a program of ours.
        """
        netem = ("root", "netem", "delay", f"{delay * 1000:.0f}ms", "loss", f"{loss * 100}%")
        ends = ((SWITCH, name), (name, CARD))
        try:
            if all(self._tc(place, "add", card, *netem) for place, card in ends):
                yield
                return
        finally:
            for place, card in ends:
                self._tc(place, "del", card, "root")
        with self._two_ports(name) as (far, near):
            command = [sys.executable, "-m", "tests.integration.bad_link", far, near, str(delay), str(loss)]
            with child_process([*self._inside(SWITCH), *command], cwd=REPOSITORY):
                yield

    @contextmanager
    def _two_ports(self, name: str) -> Iterator[tuple[str, str]]:
        """Put two ports between a host and the switch that a program has to join; gives their names."""
        number = self.hosts[name].address.rpartition(".")[2]  # a card's name has 15 characters at most
        far, near, apart = (f"{kind}-{number}" for kind in ("far", "near", "apart"))
        self._ip(SWITCH, "link", "add", "name", apart, "type", "bridge")
        self._ip(SWITCH, "link", "set", apart, "up")
        for port, bridge in ((far, apart), (near, LAN)):
            self._ip(SWITCH, "tuntap", "add", "dev", port, "mode", "tap")
            self._plug_in(port, bridge)
        self._plug_in(name, apart)
        try:
            yield far, near
        finally:
            self._plug_in(name, LAN)
            for port in (far, near, apart):
                self._ip(SWITCH, "link", "del", "dev", port)

    def _plug_in(self, port: str, bridge: str) -> None:
        self._ip(SWITCH, "link", "set", "dev", port, "master", bridge, "up")

    def _ip(self, name: str, *arguments: str) -> None:
        ip("-n", f"{self._id}-{name}", *arguments)

    def _tc(self, name: str, action: str, card: str, *how: str) -> bool:
        """Whether it could be done."""
        command = [*self._inside(name), "tc", "qdisc", action, "dev", card, *how]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0

    def _inside(self, name: str) -> list[str]:
        return ["ip", "netns", "exec", f"{self._id}-{name}"]


@contextmanager
def network_or_skip(names: Iterable[str], folder: Path) -> Iterator[Network]:
    """A network of hosts while the block lasts; the test is skipped where we may not make one."""
    if os.geteuid() != 0:
        pytest.skip("network namespaces: only root may make them")
    if shutil.which("ip") is None:
        pytest.skip("network namespaces: there is no command `ip` (Debian: apt-get install iproute2)")
    remove_namespaces(of_dead_processes())
    network = Network(names, folder)
    try:
        try:
            network.make()
        except NotAllowedError as error:
            pytest.skip(f"network namespaces: {error}")
        yield network
    finally:
        network.leave()
        remove_namespaces(name for name in namespaces() if name.startswith(f"gkd-{os.getpid()}-"))


class NotAllowedError(Exception):
    """We may not change the network of this machine, as in a container."""


def ip(*arguments: str) -> str:
    """What the command says.

    Raises:
        NotAllowedError: the kernel, or what confines us, forbids it.
    """
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        if "not permitted" in done.stderr or "not supported" in done.stderr:
            raise NotAllowedError(done.stderr.strip())
        raise AssertionError(f"ip {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout


def namespaces() -> list[str]:
    """Names of all that tests have made, whichever run did."""
    return [word for line in ip("netns", "list").splitlines() if NAME.fullmatch(word := line.split(" ")[0])]


def of_dead_processes() -> list[str]:
    """Those whose run is gone."""
    return [name for name in namespaces() if (made := NAME.fullmatch(name)) and not psutil.pid_exists(int(made[1]))]


def remove_namespaces(names: Iterable[str]) -> None:
    """Remove them, with what still runs in them."""
    for name in list(names):
        for pid in ip("netns", "pids", name).split():
            with suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
        ip("netns", "del", name)
