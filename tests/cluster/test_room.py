"""What a stage is told where Ray does not give it its workers, on a real cluster that is too small."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

pytest.importorskip("ray")

import ray

from gkd_core.cluster import room
from gkd_core.cluster.connect import own_cluster
from gkd_core.cluster.room import wait_for_room
from gkd_core.errors import PlatformError, TransientError

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def two_cores() -> Iterator[None]:
    with own_cluster(2):
        yield


def test_where_there_is_room_it_is_given_back(two_cores: None) -> None:
    for _ in range(2):
        wait_for_room("distill-proxy", 2, "cpu", minutes=3)
    deadline = time.monotonic() + 60
    while ray.available_resources().get("CPU") != 2:
        assert time.monotonic() < deadline, ray.available_resources()
        time.sleep(0.2)


@pytest.mark.parametrize(
    ("workers", "device", "missing"),
    [(3, "cpu", "3 workers need a CPU each; its 1 nodes have 2"), (1, "cuda", "1 workers need a GPU each; its 1 nodes have 0")],
)
def test_where_there_is_none_the_stage_ends_by_name_and_in_time(
    two_cores: None, workers: int, device: str, missing: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(room, "QUIET_SECONDS", 1.0)
    began = time.monotonic()
    with pytest.raises(PlatformError, match="^distill-proxy: Ray had no room within 0.05 min .compute.start_minutes.") as raised:
        wait_for_room("distill-proxy", workers, device, minutes=0.05)
    assert not isinstance(raised.value, TransientError), "it is not tried again: somebody has to act"
    assert missing in str(raised.value) and "`ray status`" in str(raised.value) and "\n" not in str(raised.value)
    assert 3 <= time.monotonic() - began < 30
    assert f"distill-proxy: waits for Ray to have room: {missing}" in capsys.readouterr().err, "and says so meanwhile"


def test_room_that_comes_later_is_taken(two_cores: None, monkeypatch: pytest.MonkeyPatch) -> None:
    @ray.remote(num_cpus=1)
    def busy() -> None:
        time.sleep(4)

    monkeypatch.setattr(room, "QUIET_SECONDS", 1.0)
    work = busy.remote()
    wait_for_room("distill-proxy", 2, "cpu", minutes=3)
    ray.get(work)
