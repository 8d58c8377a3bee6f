"""Where a cluster's parts run: addresses of loopback, or namespaces with addresses of their own (`namespaces.py`).

Names are those of the compose file's services.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping
from dataclasses import dataclass

from gkd_core.system.loopback import LOOPBACK

DATABASE, STORE, PREFECT, MLFLOW, HEAD, WORKER = "postgres", "store", "prefect-server", "mlflow", "ray-head", "prefect-worker"
NODES = ("ray-worker-1", "ray-worker-2")


@dataclass(frozen=True)
class Host:
    """One of them.

    Attributes:
        address: by which the others find it.
        prefix: what comes before a command that is to run there.
    """

    address: str = LOOPBACK
    prefix: tuple[str, ...] = ()

    def listen(self, port: int) -> socket.socket:
        """A socket of this process that listens there; port 0 takes a free one."""
        return socket.create_server((self.address, port), backlog=128)


Hosts = Mapping[str, Host]
ON_LOOPBACK: Hosts = {
    **{name: Host() for name in (DATABASE, STORE, PREFECT, MLFLOW, WORKER)},
    HEAD: Host("127.0.0.101"),  # 127.0.0.1 itself Ray would turn into the address of a network card
    **{name: Host(f"127.0.0.{number}") for number, name in enumerate(NODES, 2)},
}
