"""A store that misbehaves on purpose: an HTTP proxy on loopback that spoils what a sound server answers."""

from __future__ import annotations

import http.client
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

from gkd_core.storage.client import Patience

# For clients of it: what passes shall be outlasted, on a busy machine too; what lasts shall end soon.
STEADY = Patience(connect_seconds=10, read_seconds=10, attempts=4, base_seconds=30)
QUICK = Patience(connect_seconds=2, read_seconds=1, attempts=4, base_seconds=4, bytes_per_second=4 * 1024**2)
SECRET = "not-to-be-seen-anywhere"


@dataclass
class Reply:
    """An answer on its way: `body` is what is sent, whatever length `headers` promise."""

    status: int
    headers: dict[str, str]
    body: bytes
    bytes_per_second: float | None = None
    reset: bool = False


@dataclass(frozen=True)
class Asked:
    """A request: its number from 0 on, its method, the path of its object (`/bucket/key`), and its query as it came."""

    number: int
    method: str
    path: str
    query: str
    range: str | None


Fault = Callable[[Asked, Reply], Reply]


def sound(asked: Asked, reply: Reply) -> Reply:
    return reply


def failing(kind: str, every: int = 3, first: int = 2) -> Fault:
    """Every so manieth request, of any kind, is answered by a status, or by a reset of the connection."""

    def fault(asked: Asked, reply: Reply) -> Reply:
        if asked.number % every != first:
            return reply
        if kind == "reset":
            return Reply(0, {}, b"", reset=True)
        body = b"<Error><Code>InternalError</Code></Error>" if kind == "500" else b""
        return Reply(int(kind), {"Content-Length": str(len(body))}, body)

    return fault


def truncated(share: float, times: int | None = None) -> Fault:
    """Bodies of objects end early, below the length that their head promises; all of them, or the first so many."""
    left = [times]

    def fault(asked: Asked, reply: Reply) -> Reply:
        if asked.method != "GET" or not _is_object(asked) or left[0] == 0 or reply.status >= 300:
            return reply
        left[0] = None if left[0] is None else left[0] - 1
        kept = max(1, int(len(reply.body) * share)) if share else 0
        return Reply(reply.status, reply.headers, reply.body[:kept])

    return fault


def shortened(times: int | None = None) -> Fault:
    """Bodies of objects lack their last byte, and their head says so too: what a proxy may have in its own cache."""
    left = [times]

    def fault(asked: Asked, reply: Reply) -> Reply:
        if asked.method != "GET" or not _is_object(asked) or left[0] == 0 or reply.status >= 300:
            return reply
        left[0] = None if left[0] is None else left[0] - 1
        body = reply.body[:-1]
        return Reply(reply.status, reply.headers | {"Content-Length": str(len(body))}, body)

    return fault


def wrong(times: int | None = None) -> Fault:
    """A bit of an object's body is turned, at the right length; always, or the first so many times."""
    left = [times]

    def fault(asked: Asked, reply: Reply) -> Reply:
        if asked.method != "GET" or not _is_object(asked) or left[0] == 0 or not reply.body or reply.status >= 300:
            return reply
        left[0] = None if left[0] is None else left[0] - 1
        body = bytearray(reply.body)
        body[len(body) // 2] ^= 1
        return Reply(reply.status, reply.headers, bytes(body))

    return fault


def slow(bytes_per_second: float) -> Fault:
    """Bodies of objects trickle."""

    def fault(asked: Asked, reply: Reply) -> Reply:
        return Reply(reply.status, reply.headers, reply.body, bytes_per_second if _is_object(asked) else None)

    return fault


def silent(seconds: float) -> Fault:
    """Objects are answered after a while."""

    def fault(asked: Asked, reply: Reply) -> Reply:
        if asked.method == "GET" and _is_object(asked):
            time.sleep(seconds)
        return reply

    return fault


def _is_object(asked: Asked) -> bool:
    return asked.path.count("/") > 1


@dataclass
class FaultyProxy:
    """The proxy's address, its fault (to be set at any time), and what it was asked for."""

    url: str
    fault: Fault = sound
    asked: list[Asked] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def note(self, method: str, target: str, span: str | None) -> Asked:
        with self.lock:
            asked = Asked(len(self.asked), method, unquote(urlsplit(target).path), urlsplit(target).query, span)
            self.asked.append(asked)
            return asked

    def misbehave(self, fault: Fault) -> None:
        """Forget what was asked so far, and spoil what comes."""
        with self.lock:
            self.asked.clear()
            self.fault = fault

    def objects(self) -> list[str]:
        """Paths of the objects that were asked for, in order, each as often as it was."""
        return [asked.path for asked in self.asked if asked.method == "GET" and _is_object(asked)]


@contextmanager
def faulty_proxy(upstream: str) -> Iterator[FaultyProxy]:
    """Serve a proxy before the server at `upstream` (`http://host:port`) while the block lasts."""
    address = urlsplit(upstream).netloc

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            proxy = self.server.proxy  # type: ignore[attr-defined]
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            asked = proxy.note(self.command, self.path, self.headers.get("Range"))
            connection = http.client.HTTPConnection(address, timeout=30)
            connection.request(self.command, self.path, body, dict(self.headers))
            response = connection.getresponse()
            content = response.read()
            drop = ("transfer-encoding", "connection", "content-length")
            headers = {key: value for key, value in response.getheaders() if key.lower() not in drop}
            length = response.getheader("Content-Length") if self.command == "HEAD" else str(len(content))
            connection.close()
            self.send(proxy.fault(asked, Reply(response.status, headers | {"Content-Length": length or "0"}, content)))

        do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = answer  # noqa: N815 (names of the library)

        def send(self, reply: Reply) -> None:
            self.close_connection = True
            if reply.reset:
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self.connection.close()
                return
            self.send_response_only(reply.status)
            for key, value in reply.headers.items():
                self.send_header(key, value)
            self.send_header("Connection", "close")
            self.end_headers()
            if self.command == "HEAD":
                return
            try:
                self.send_body(reply)
            except OSError:
                return  # the client has gone, as one that loses patience does

        def send_body(self, reply: Reply) -> None:
            if reply.bytes_per_second is None:
                self.wfile.write(reply.body)
                return
            piece = max(1, int(reply.bytes_per_second / 20))
            for start in range(0, len(reply.body), piece):
                self.wfile.write(reply.body[start : start + piece])
                time.sleep(1 / 20)

        def log_message(self, *_: object) -> None:
            return

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: object) -> None:
            return  # a reset connection is meant

    server = Server(("127.0.0.1", 0), Handler)
    proxy = FaultyProxy(f"http://127.0.0.1:{server.server_port}")
    server.proxy = proxy  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        server.shutdown()
        server.server_close()
