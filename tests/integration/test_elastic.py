"""An elastic group of workers on a Ray cluster whose nodes come and go while it trains."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import ray
from ray.cluster_utils import Cluster
from ray.train import ScalingConfig

from gkd_core.cluster import train as ray_train
from gkd_core.cluster.nodes import SharedFolders, nodes
from gkd_core.settings import Settings, settings_from_tree
from gkd_core.stages import Recipe, run_folder, run_stage
from gkd_core.training.metrics import MetricsFollower, MetricsSink
from tests.integration.ray_workers import ray_workers

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(600), pytest.mark.xdist_group("ray")]

PATIENCE = 200.0
EVERY = 4  # updates between checkpoints
GATES = (10, 20)  # updates before which the first worker waits for leave
UPDATES = 24


@dataclass(frozen=True)
class Gated(SharedFolders):
    """Our own folders; but training waits at each gate until a file of its number lies in `leaves`."""

    leaves: Path

    def sink(self, folder: Path) -> MetricsSink:
        sink = super().sink(folder)

        def gated(step: int, values: Mapping[str, float]) -> None:
            sink(step, values)
            while step in GATES and not (self.leaves / str(step)).exists():
                time.sleep(0.05)

        return gated


@pytest.fixture(scope="module")
def settings(tiny_tree: dict[str, Any]) -> Settings:
    distill = tiny_tree["distill_proxy"] | {"updates": UPDATES, "checkpoint_every": EVERY, "batch_size": 8}
    compute = tiny_tree["compute"] | {"workers": 1, "max_workers": 3}
    return settings_from_tree(tiny_tree | {"distill_proxy": distill, "compute": compute})


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """A head that takes no work, and one node with one core."""
    # For so long Ray waits for a node that it does not yet know to be lost, instead of a minute.
    monkeypatch.setenv("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", "30")
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    cluster.add_node(num_cpus=1)
    ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
    yield cluster
    ray.shutdown()
    cluster.shutdown()


def test_a_group_grows_and_shrinks_with_its_cluster(
    cluster: Cluster, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One worker; then three, of which two share a batch of eight and one stands by; then the two that are left."""
    monkeypatch.setattr(ray_train, "ScalingConfig", functools.partial(ScalingConfig, elastic_resize_monitor_interval_s=1.0))
    run = Recipe.of(settings).find("distill-proxy")
    run_stage(Recipe.of(settings), Recipe.of(settings).find("prepare-data"), tmp_path)
    folder = run_folder(settings, run, tmp_path)

    def train() -> None:
        nodes.set(Gated(tmp_path))  # in this thread alone
        run_stage(Recipe.of(settings), run, tmp_path)

    training = ThreadPoolExecutor(1).submit(train)  # Ray's nodes can only be added by the main thread
    _wait_for(training, lambda: _lines(folder) == [(step, 1) for step in range(1, GATES[0] + 1)])
    added = [cluster.add_node(num_cpus=1) for _ in range(2)]
    # Ray may see one of the two nodes before the other.
    _wait_for(training, lambda: _lines(folder)[-1] == (GATES[0], 2) and len(ray_workers()) == 3)
    (tmp_path / str(GATES[0])).touch()
    _wait_for(training, lambda: _lines(folder)[-1] == (GATES[1], 2))
    cluster.remove_node(added[-1], allow_graceful=False)
    (tmp_path / str(GATES[1])).touch()
    training.result(PATIENCE)

    assert _lines(folder)[-1] == (UPDATES, 2)
    lost = GATES[0] % EVERY
    assert _lines(folder)[GATES[0]] == (GATES[0] - lost + 1, 2), "the larger group went on from the last checkpoint"
    # Each worker draws masks of its own, so an update is the same only where as many share it.
    losses = _losses(folder)
    assert any(len(found) > 1 for found in losses.values()), "the last group did updates of the one before it again"
    assert all(len(set(found)) == 1 for found in losses.values()), "in the same way"
    alone = settings.model_copy(update={"compute": settings.compute.model_copy(update={"workers": 0, "max_workers": None})})
    run_stage(Recipe.of(alone), run, tmp_path)
    expected = {int(line["step"]): line["loss"] for line in MetricsFollower(run_folder(alone, run, tmp_path)).read()}
    for step in range(1, GATES[0] + 1):
        assert losses[step, 1] == [pytest.approx(expected[step], rel=1e-5)]


def _wait_for(training: Future[None], what: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not what():
        assert not training.done(), training.result()
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.1)


def _lines(folder: Path) -> list[tuple[int, int]]:
    """Update and number of workers of each line of metrics."""
    return [(int(line["step"]), int(line["workers"])) for line in MetricsFollower(folder).read()] or [(0, 0)]


def _losses(folder: Path) -> dict[tuple[int, int], list[float]]:
    """The losses of each update by each number of workers, as often as it was done."""
    found: dict[tuple[int, int], list[float]] = {}
    for line in MetricsFollower(folder).read():
        found.setdefault((int(line["step"]), int(line["workers"])), []).append(line["loss"])
    return found
