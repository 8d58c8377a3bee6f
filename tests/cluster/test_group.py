"""How the workers of a group meet: which of the two ways, and at which interface."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

pytest.importorskip("ray")

import ray

from gkd_core.cluster import group as ray_group
from gkd_core.cluster.group import GroupBackend, GroupConfig, interface_of
from gkd_core.cluster.own_cluster import PREFIX
from gkd_core.errors import PlatformError


class Workers:
    """A group of Ray Train's whose workers are on given nodes; notes what each is told to join."""

    def __init__(self, nodes: list[str]) -> None:
        self._nodes = nodes
        self.joined: list[tuple[Any, ...]] = []

    def __len__(self) -> int:
        return len(self._nodes)

    def execute(self, function: Callable[[], object]) -> list[str]:
        assert function is ray_group._node
        return self._nodes

    def execute_single(self, rank: int, function: Callable[[], object]) -> object:
        assert rank == 0
        return function()

    def execute_single_async(self, rank: int, function: Callable[..., None], *arguments: object) -> None:
        self.joined.append((function, *arguments[:4]))
        assert arguments[2] == rank


@pytest.fixture
def scratch(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder for temporary files, with a path short enough for Ray's sockets."""
    with tempfile.TemporaryDirectory(prefix="g-", dir="/tmp") as name:
        monkeypatch.setattr("tempfile.tempdir", name)
        monkeypatch.setattr(ray, "get", lambda references: references)
        yield Path(name)


def test_workers_of_one_node_meet_in_a_file_that_is_ours_alone(scratch: Path) -> None:
    workers = Workers(["a", "a"])
    GroupBackend().on_start(workers, GroupConfig(backend="gloo"))
    try:
        (folder,) = scratch.glob(f"{PREFIX}*")
        assert folder.stat().st_mode & 0o777 == 0o700
        store = folder / "store"
        assert workers.joined == [(ray_group.join_by_file, store, "gloo", rank, 2) for rank in range(2)]
    finally:
        ray_group._let_go()
    assert list(scratch.iterdir()) == []


def test_workers_of_several_nodes_meet_at_the_address_of_the_first(scratch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray.util, "get_node_ip_address", lambda: "127.0.0.1")
    workers = Workers(["a", "b", "b"])
    GroupBackend().on_start(workers, GroupConfig(backend="gloo"))
    listening = ray_group._listening.pop()
    with listening:
        place = listening.getsockname()
        assert place[0] == "127.0.0.1"
        assert workers.joined == [(ray_group._join_by_network, place, "gloo", rank, 3) for rank in range(3)]
    assert list(scratch.iterdir()) == []


def test_the_interface_of_an_address() -> None:
    loopback = interface_of("127.0.0.1")
    assert "127.0.0.1" in [item.address for item in psutil.net_if_addrs()[loopback]]
    assert interface_of("127.0.0.101") == loopback, "in the network of its address"
    with pytest.raises(PlatformError, match=r"no interface of .* has the address 203\.0\.113\.9, by which Ray knows it"):
        interface_of("203.0.113.9")
