"""Ports and HTTP services of this machine: is a port free, does a service answer."""

from __future__ import annotations

import http.client
import socket
import urllib.error
import urllib.request

LOOPBACK = "127.0.0.1"
ANSWER_SECONDS = 5.0
# What a proxy says of loopback is of no use to us.
_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def free_port() -> int:
    """A port that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        port: int = probe.getsockname()[1]
        return port


def is_free(port: int) -> bool:
    """Whether a server could listen on this port of loopback now."""
    with socket.socket() as probe:
        # As servers do: a connection that was closed a moment ago must not count as somebody who listens.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
        return True


def answers(url: str, seconds: float = ANSWER_SECONDS) -> bool:
    """Whether a GET of this address is answered with status 200 in time."""
    try:
        with _opener.open(url, timeout=seconds) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, http.client.HTTPException, OSError):
        return False
