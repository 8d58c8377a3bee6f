"""A door before a server on loopback: connections pass while it is open, and are cut and refused while it is shut."""

from __future__ import annotations

import selectors
import socket
import threading
from contextlib import suppress
from types import TracebackType
from typing import Self

from tests.integration.hosts import Host

CHUNK = 1 << 16


class Gate:
    """Listens on a port of its own, always the same, and hands every connection on to the server's port.

    Args:
        host: where it listens.
    """

    def __init__(self, port: int, host: Host = Host()) -> None:  # noqa: B008  # it cannot be altered
        self._target = port
        self._host = host
        self._pairs: set[tuple[socket.socket, socket.socket]] = set()
        self._lock = threading.Lock()
        self._listener: socket.socket | None = None
        self.port = 0
        self.open()

    @property
    def url(self) -> str:
        return f"http://{self._host.address}:{self.port}"

    def open(self) -> None:
        """Let connections pass."""
        self._listener = self._host.listen(self.port)
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def shut(self) -> None:
        """Refuse connections, and cut those that there are."""
        assert self._listener is not None
        # Only this wakes the thread that waits in `accept`.
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._listener = None
        with self._lock:
            for pair in self._pairs:
                _cut(*pair)

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(("127.0.0.1", self._target), timeout=10)
            except OSError:
                client.close()
                continue
            threading.Thread(target=self._pass_on, args=(client, server), daemon=True).start()

    def _pass_on(self, client: socket.socket, server: socket.socket) -> None:
        pair = (client, server)
        server.settimeout(None)
        with self._lock:
            self._pairs.add(pair)
        with client, server, selectors.DefaultSelector() as selector:
            selector.register(client, selectors.EVENT_READ, server)
            selector.register(server, selectors.EVENT_READ, client)
            try:
                while all(_move(key.fileobj, key.data) for key, _ in selector.select()):  # type: ignore[arg-type]
                    pass
            except OSError:
                pass  # one side has gone, and so does the other
            finally:
                with self._lock:
                    self._pairs.discard(pair)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._listener is not None:
            self.shut()


def _move(source: socket.socket, target: socket.socket) -> bool:
    """Hand on what has come; False where nothing more will."""
    data = source.recv(CHUNK)
    target.sendall(data)
    return bool(data)


def _cut(*pair: socket.socket) -> None:
    for end in pair:
        with suppress(OSError):  # it was closed meanwhile
            end.shutdown(socket.SHUT_RDWR)
