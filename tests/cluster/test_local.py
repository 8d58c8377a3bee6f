"""Folders that Ray clusters leave when they and we are killed."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gkd_core.cluster.local import shared_cluster
from gkd_core.cluster.own_cluster import IN_USE, PREFIX, START_SECONDS, sweep_folders
from gkd_core.settings import load_settings
from gkd_core.stages.waves import own_ray_stages


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path


def _cluster(folder: Path, name: str) -> Path:
    cluster = folder / f"{PREFIX}{name}"
    (cluster / "session").mkdir(parents=True)
    (cluster / IN_USE).touch()
    return cluster


def test_only_folders_of_dead_clusters_are_removed(folder: Path) -> None:
    dead, held, starting = _cluster(folder, "dead"), _cluster(folder, "held"), folder / f"{PREFIX}starting"
    starting.mkdir()
    stranger = folder / "ray-of-somebody"
    stranger.mkdir()
    with (held / IN_USE).open() as mark:
        fcntl.flock(mark, fcntl.LOCK_SH)
        assert sweep_folders() == [str(dead)]
        assert sorted(folder.iterdir()) == sorted([held, starting, stranger])
    assert sweep_folders() == [str(held)]
    long_ago = time.time() - 2 * START_SECONDS
    os.utime(starting, (long_ago, long_ago))
    assert sweep_folders() == [str(starting)]


def test_a_link_that_somebody_laid_is_left_alone(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    ours = tmp_path_factory.mktemp("ours")
    (ours / "file").touch()
    (folder / f"{PREFIX}link").symlink_to(ours)
    long_ago = time.time() - 2 * START_SECONDS
    os.utime(ours, (long_ago, long_ago))
    assert sweep_folders() == []
    assert (ours / "file").exists()


def test_a_child_that_outlives_us_holds_the_folder(folder: Path) -> None:
    cluster = _cluster(folder, "orphaned")
    with (cluster / IN_USE).open() as mark:
        fcntl.flock(mark, fcntl.LOCK_SH)
        child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, pass_fds=[mark.fileno()])
    assert sweep_folders() == []
    child.communicate(b"\n")
    assert sweep_folders() == [str(cluster)]


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["compute.workers=2"], {"distill-proxy"}),
        (["compute.workers=2", "evaluate.workers=2"], {"distill-proxy", "evaluate"}),
        (["compute.address=http://head:8265", "compute.storage=s3://b/runs", "evaluate.workers=2"], {"evaluate"}),
        (["compute.address=http://head:8265", "compute.storage=s3://b/runs"], set()),
        (["compute.workers=0"], set()),
    ],
)
def test_a_stage_has_the_key_of_the_cluster_that_it_works_on_and_of_no_other(
    overrides: list[str], told: set[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    settings = load_settings(None, "demo", overrides)
    with shared_cluster(settings, own_ray_stages(settings), tmp_path) as cluster:
        stages = ("prepare-data", "distill-proxy", "learn-task", "evaluate")
        assert {stage for stage in stages if "RAY_AUTH_TOKEN" in cluster.environment(stage)} == told
