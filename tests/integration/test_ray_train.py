"""Stage one on real Ray workers: undisturbed, with a worker killed, and stopped by Ctrl-C.

All three end in the same weights, bit for bit.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import ray

from gkd_core.cluster.connect import own_cluster
from gkd_core.errors import SettingsError, TrainingError
from gkd_core.records import sha256_of
from gkd_core.settings import Settings, dump_settings, settings_from_tree
from gkd_core.stages import Recipe, run_folder, run_stage
from gkd_core.training.cost import read_cost
from gkd_core.training.metrics import FILE as METRICS
from tests.integration.ray_workers import ray_workers

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

PATIENCE = 240.0  # a machine that does other work too takes minutes to start a group of workers
STUDENT = Path("artifacts") / "distill-proxy" / "encoder.safetensors"
OBJECTIVE = STUDENT.with_name("objective.safetensors")


@pytest.fixture(scope="module")
def settings(tiny_tree: dict[str, Any]) -> Settings:
    """Enough updates that a run can be caught in the middle, with a checkpoint now and then."""
    distill = tiny_tree["distill_proxy"] | {"updates": 100, "checkpoint_every": 8, "warm_start": {"updates": 10}}
    compute = tiny_tree["compute"] | {"workers": 2}
    return settings_from_tree(tiny_tree | {"distill_proxy": distill, "compute": compute})


@pytest.fixture(scope="module")
def world(settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a rendered world."""
    workspace = tmp_path_factory.mktemp("world")
    run_stage(Recipe.of(settings), Recipe.of(settings).find("prepare-data"), workspace)
    return workspace / "artifacts" / "data"


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """The address of one local Ray for all tests: starting one each would take most of their time."""
    with own_cluster(4):
        yield ray.get_runtime_context().gcs_address


def new_workspace(folder: Path, world: Path, settings: Settings) -> Path:
    (folder / "artifacts").mkdir(parents=True)
    (folder / "artifacts" / "data").symlink_to(world)
    (folder / "params.yaml").write_text(dump_settings(settings))
    return folder


def run_proxy(settings: Settings, workspace: Path) -> None:
    run_stage(Recipe.of(settings), Recipe.of(settings).find("distill-proxy"), workspace)


@pytest.fixture(scope="module")
def undisturbed(cluster: str, settings: Settings, world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The workspace of a run that nothing disturbed."""
    workspace = new_workspace(tmp_path_factory.mktemp("undisturbed"), world, settings)
    run_proxy(settings, workspace)
    return workspace


def test_workers_note_what_they_cost(undisturbed: Path, settings: Settings) -> None:
    cost = read_cost(run_folder(settings, Recipe.of(settings).find("distill-proxy"), undisturbed))
    assert cost is not None
    assert (cost.attempts, cost.gpus, cost.updates) == (1, 0, 100)
    assert cost.peak_host_bytes > 300_000_000  # the stage and two workers, each with torch
    assert cost.images_per_second is not None


def assert_same_end(workspace: Path, undisturbed: Path) -> None:
    for name in (STUDENT, OBJECTIVE):
        assert sha256_of(workspace / name) == sha256_of(undisturbed / name)


def wait_for(what: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not what():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.02)


def has_checkpoint(folder: Path) -> bool:
    """Whether Ray has noted a checkpoint: one that was only just written is made again after a stop."""
    return (folder / "ray" / "checkpoint_manager_snapshot.json").is_file() and any(folder.rglob("training.pt"))


def updates_logged(folder: Path) -> list[int]:
    return [json.loads(line)["step"] for line in (folder / METRICS).read_text().splitlines()]


def groups_lost(caplog: pytest.LogCaptureFixture) -> int:
    """How often a group of workers was started in the place of another."""
    return len([record for record in caplog.records if record.name == "gkd_core.cluster.train"])


def test_a_batch_that_cannot_be_shared_is_refused_at_once(settings: Settings, world: Path, tmp_path: Path) -> None:
    odd = settings.model_copy(update={"distill_proxy": settings.distill_proxy.model_copy(update={"batch_size": 5})})
    with pytest.raises(SettingsError, match="batch_size: 5 images do not divide among 2 workers; choose a multiple"):
        run_proxy(odd, new_workspace(tmp_path / "w", world, odd))


def test_a_loss_that_is_not_finite_ends_two_workers_at_once(
    cluster: str, settings: Settings, world: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    hot = settings.distill_proxy.model_copy(update={"lr": 1e30, "warmup_updates": 0, "min_lr": 1e30, "log_every": 1})
    hot_settings = settings.model_copy(update={"distill_proxy": hot})
    workspace = new_workspace(tmp_path / "w", world, hot_settings)
    with pytest.raises(
        TrainingError, match=r"the loss is (nan|inf) at update \d+ of 100; its batch: .*\.png.*; last good checkpoint"
    ):
        run_proxy(hot_settings, workspace)
    folder = run_folder(hot_settings, Recipe.of(hot_settings).find("distill-proxy"), workspace)
    steps = updates_logged(folder)
    assert len(steps) == len(set(steps)), "one group of workers, no second try"
    assert not groups_lost(caplog)


def test_a_killed_worker_is_replaced_and_the_end_is_the_same(
    undisturbed: Path, settings: Settings, world: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    workspace = new_workspace(tmp_path / "w", world, settings)
    folder = run_folder(settings, Recipe.of(settings).find("distill-proxy"), workspace)
    killed: list[int] = []

    def kill() -> None:
        wait_for(lambda: has_checkpoint(folder) and bool(ray_workers()))
        victim = ray_workers()[-1]
        victim.kill()
        killed.append(victim.pid)

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    run_proxy(settings, workspace)
    killer.join()
    assert killed
    assert groups_lost(caplog) == 1
    steps = updates_logged(folder)
    assert len(steps) > len(set(steps)), "some updates were done twice, so the group was rebuilt in the middle"
    assert_same_end(workspace, undisturbed)


@pytest.mark.slow
def test_ctrl_c_and_the_same_command_again_end_the_same(
    cluster: str, undisturbed: Path, settings: Settings, world: Path, tmp_path: Path
) -> None:
    workspace = new_workspace(tmp_path / "w", world, settings)
    folder = run_folder(settings, Recipe.of(settings).find("distill-proxy"), workspace)
    environment = {**os.environ, "RAY_ADDRESS": cluster}
    command = [sys.executable, "-c", "from gkd_core.cli import main; main()", "run", "distill-proxy"]
    with subprocess.Popen(command, cwd=workspace, env=environment, stderr=subprocess.PIPE, text=True) as process:
        wait_for(lambda: has_checkpoint(folder) or process.poll() is not None)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
    assert errors.rstrip().endswith("gkd: interrupted; the same command goes on from the last checkpoint")
    assert "Traceback" not in errors
    assert sorted(path.name for path in (workspace / "artifacts").iterdir()) == ["data", "runs"], "nothing under its final name"
    before = updates_logged(folder)
    assert before[-1] < settings.distill_proxy.updates

    run_proxy(settings, workspace)
    after = updates_logged(folder)[len(before) :]
    assert after[0] > 1, "it went on instead of starting over"
    assert after[-1] == settings.distill_proxy.updates
    assert_same_end(workspace, undisturbed)
