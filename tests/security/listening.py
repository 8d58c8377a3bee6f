"""What the processes of a test listen on."""

from __future__ import annotations

import ipaddress
import socket
import subprocess
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import psutil

RAY = ("gcs_server", "raylet/raylet", "DashboardAgent", "RuntimeEnvAgent")


@dataclass(frozen=True, order=True)
class Listener:
    """A socket that others can send to: of TCP in state LISTEN, or of UDP and bound without a peer."""

    program: str
    kind: str
    address: str
    port: int

    @property
    def on_loopback(self) -> bool:
        address = ipaddress.ip_address(self.address)
        return (getattr(address, "ipv4_mapped", None) or address).is_loopback


def tree(root: int) -> list[psutil.Process]:
    """A process and all below it, as they are now."""
    try:
        process = psutil.Process(root)
        return [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def listening(processes: Iterable[psutil.Process]) -> set[Listener]:
    """What they listen on now."""
    found: set[Listener] = set()
    for process in processes:
        try:
            program = " ".join(process.cmdline())
            for item in process.net_connections("inet"):
                if item.status == psutil.CONN_LISTEN or (item.type == socket.SOCK_DGRAM and not item.raddr):
                    found.add(Listener(program, item.type.name, item.laddr.ip, item.laddr.port))
        except psutil.NoSuchProcess:
            continue  # ended meanwhile
    return found


def run_of(listeners: set[Listener], program: str) -> set[Listener]:
    """Those of processes whose command line has this word."""
    return {listener for listener in listeners if program in listener.program}


def all_of_ray(root: int, seconds: float = 90) -> set[Listener]:
    """What a process and a Ray of its own listen on, once all of Ray's have come up: it works before its agents are there.

    How many ports there are says nothing: some of Ray's are fixed numbers, which it does without where another Ray has them.
    """
    deadline = time.monotonic() + seconds
    while missing := [name for name in RAY if not run_of(found := listening(tree(root)), name)]:
        assert time.monotonic() < deadline, f"after {seconds} s nothing of {missing} listens, only {sorted(found)}"
        time.sleep(0.5)
    return found


def beyond_loopback(listeners: Iterable[Listener]) -> list[Listener]:
    return sorted(listener for listener in listeners if not listener.on_loopback)


def reachable(listener: Listener, address: str) -> bool:
    """Whether somebody at another address of this machine's gets through to it."""
    with socket.socket() as attempt:
        attempt.settimeout(5)
        return attempt.connect_ex((address, listener.port)) == 0


def watch(process: subprocess.Popen[Any], look: Callable[[], object] = lambda: None) -> set[Listener]:
    """Look at a process and all below it, again and again until it ends; gives all that they listened on.

    Args:
        look: called each time.
    """
    found: set[Listener] = set()
    while process.poll() is None:
        found |= listening(tree(process.pid))
        look()
        time.sleep(0.2)
    return found
