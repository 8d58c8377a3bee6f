"""How the workers of a group find each other, so that nobody else finds them.

Ray Train lets torch open a store on every interface of the first worker's node, which whoever reaches it may read and write
without a key. Here workers of one node meet in a file that only we can read, and exchange gradients on loopback; workers of
several nodes meet at the address that the first one's node has in the cluster, and exchange on the interface of that network.
"""

from __future__ import annotations

import ipaddress
import os
import socket
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import psutil
import ray
from ray.train.backend import BackendConfig
from ray.train.torch import TorchConfig
from ray.train.torch.config import _TorchBackend
from torch.distributed import FileStore, Store, TCPStore, init_process_group  # type: ignore[attr-defined]  # they are public

from gkd_core.cluster.own_cluster import own_folder
from gkd_core.errors import PlatformError
from gkd_core.system.loopback import LOOPBACK

STORE = "store"
INTERFACES = ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")  # where each of torch's backends listens
_held = ExitStack()  # what this process keeps, as the first of a group, for the others
_listening: list[socket.socket] = []  # until the store has taken it over


@dataclass
class GroupConfig(TorchConfig):
    """Ray Train's own settings of a group, and our way to meet."""

    @property
    def backend_cls(self) -> type[_TorchBackend]:
        return GroupBackend


class GroupBackend(_TorchBackend):  # type: ignore[misc]  # Ray's is not typed
    """Ray Train's backend for torch, but for the store by which its workers find each other."""

    def on_start(self, worker_group: Any, backend_config: BackendConfig) -> None:
        """Called by Ray Train for each new group: returns when all are members of torch's process group."""
        assert isinstance(backend_config, GroupConfig)
        together = len(set(worker_group.execute(_node))) == 1
        place = worker_group.execute_single(0, _make_file if together else _listen)
        join = join_by_file if together else _join_by_network
        size, wait = len(worker_group), timedelta(seconds=backend_config.timeout_s)
        backend = backend_config.backend
        ray.get([worker_group.execute_single_async(rank, join, place, backend, rank, size, wait) for rank in range(size)])

    def on_shutdown(self, worker_group: Any, backend_config: BackendConfig) -> None:
        """Called by Ray Train at a group's end. What a killed worker leaves is swept by whoever makes such a folder next."""
        super().on_shutdown(worker_group, backend_config)
        worker_group.execute_single(0, _let_go)


def join_by_file(path: Path, backend: str, rank: int, size: int, wait: timedelta) -> None:
    """Become a member of a group on this machine; the file's folder must be closed to others."""
    for variable in INTERFACES:
        os.environ[variable] = interface_of(LOOPBACK)
    _join(FileStore(str(path), size), backend, rank, size, wait)


def _join_by_network(place: tuple[str, int], backend: str, rank: int, size: int, wait: timedelta) -> None:
    for variable in INTERFACES:
        os.environ.setdefault(variable, interface_of(ray.util.get_node_ip_address()))
    listening = _listening.pop().detach() if rank == 0 else None
    store = TCPStore(*place, size, rank == 0, timeout=wait, master_listen_fd=listening)
    _join(store, backend, rank, size, wait)


def _join(store: Store, backend: str, rank: int, size: int, wait: timedelta) -> None:
    store.set_timeout(wait)
    # As Ray Train has it: a lost worker ends the others' exchange by NCCL, instead of leaving them to wait.
    os.environ.setdefault("TORCH_NCCL_ASYNC_ERROR_HANDLING", "1")
    init_process_group(backend, store=store, rank=rank, world_size=size, timeout=wait)


def interface_of(address: str) -> str:
    """Name of this machine's interface that has an address, or has it in its network.

    Raises:
        PlatformError: there is none.
    """
    wanted = ipaddress.ip_address(address)
    for name, addresses in psutil.net_if_addrs().items():
        for item in addresses:
            if item.family in (socket.AF_INET, socket.AF_INET6) and _has(item.address, item.netmask, wanted):
                return name
    raise PlatformError(f"no interface of {socket.gethostname()} has the address {address}, by which Ray knows it")


def _has(address: str, netmask: str | None, wanted: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    own = ipaddress.ip_address(address.partition("%")[0])
    if own == wanted or own.version != wanted.version or own.version == 6 or netmask is None:
        return own == wanted
    return wanted in ipaddress.ip_network(f"{own}/{netmask}", strict=False)


def _node() -> str:
    return str(ray.get_runtime_context().get_node_id())


def _make_file() -> Path:
    return _held.enter_context(own_folder()).path / STORE


def _let_go() -> None:
    _held.close()


def _listen() -> tuple[str, int]:
    """Listen at the address by which the cluster knows this node, and there alone, and say where."""
    address = ray.util.get_node_ip_address()
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    opened = socket.socket(family)
    opened.bind((address, 0))
    opened.listen()
    _listening[:] = [opened]
    return address, opened.getsockname()[1]
