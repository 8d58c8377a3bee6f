"""Workspaces: what is in one, what they share, and which are swept."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from gkd_core.errors import PlatformError
from gkd_core.files import atomic_file
from gkd_core.settings import Settings, load_settings, settings_from_tree
from gkd_core.versioning.workspace import (
    anchor_paths,
    create_workspace,
    publish,
    publish_report,
    sweep_workspaces,
    workspace_in_use,
)


def test_workspace_holds_settings_and_shares_checkpoints(project: Path, workspace: Path) -> None:
    assert load_settings(workspace / "params.yaml") == Settings()
    (workspace / "artifacts/runs/some-stage").mkdir()
    assert (project / "artifacts/runs/some-stage").is_dir()


def test_name_in_use_is_refused(project: Path, workspace: Path) -> None:
    with pytest.raises(PlatformError, match="a workspace of this name exists"):
        create_workspace(project, "first", Settings())


def test_relative_paths_are_anchored_and_names_are_not() -> None:
    settings = settings_from_tree(
        {
            "data": {"world": None, "root": "../data", "catalogs": ["camvid", "mine/extra.yaml"]},
            "teacher": {"arch": "vit", "weights": "weights/teacher.safetensors"},
            "student": {"arch": "vit", "weights": "package:efficientnet"},
        }
    )
    anchored = anchor_paths(settings, Path("/home/project"))
    assert anchored.data.root == "/home/data"
    assert anchored.data.catalogs == ("camvid", "/home/project/mine/extra.yaml")
    assert anchored.teacher.weights == "/home/project/weights/teacher.safetensors"
    assert anchored.student.weights == "package:efficientnet"


@pytest.mark.parametrize("root", ["data", "./data", "{project}/data", "sub/../data"])
@pytest.mark.parametrize("key", ["root", "shards"])
def test_data_of_the_project_keep_their_relative_path_and_are_seen_through_a_link(project: Path, root: str, key: str) -> None:
    """So DVC knows a stage's inputs by the same names in every clone."""
    settings = settings_from_tree({"data": {"world": None, key: root.format(project=project)}})
    assert getattr(anchor_paths(settings, project).data, key) == "data"
    workspace = create_workspace(project, "first", settings)
    (project / "data/cityscapes").mkdir(parents=True)
    assert (workspace / "data/cityscapes").is_dir()
    assert getattr(load_settings(workspace / "params.yaml").data, key) == "data"


@pytest.mark.parametrize("root", ["../data", "/data", "artifacts/data", "."])
def test_other_data_are_anchored(project: Path, root: str) -> None:
    settings = settings_from_tree({"data": {"world": None, "root": root}})
    assert anchor_paths(settings, project).data.root == os.path.normpath(project / root)


def test_settings_without_paths_stay_as_they_are() -> None:
    assert anchor_paths(Settings(), Path("/home/project")) == Settings()


def _aged(project: Path, name: str, hours: float) -> Path:
    """A workspace that was last written to so long ago."""
    workspace = create_workspace(project, name, Settings())
    then = time.time() - hours * 3600
    for path in (*workspace.iterdir(), workspace):
        os.utime(path, (then, then), follow_symlinks=False)
    return workspace


def _left(project: Path) -> set[str]:
    return {path.name for path in (project / "artifacts/workspaces").iterdir() if path.is_dir()}


def test_sweep_keeps_the_newest_the_young_and_those_in_use(project: Path, toys: Mapping[str, Any]) -> None:
    for name, hours in (("new", 1.0), ("young", 5.0), ("old", 30.0), ("older", 40.0), ("used", 50.0)):
        _aged(project, name, hours)
    with workspace_in_use(project / "artifacts/workspaces/used"):
        assert sweep_workspaces(project, keep=1, hours=24) == ["old", "older"]
    assert _left(project) == {"new", "young", "used"}
    assert sweep_workspaces(project, keep=1, hours=24) == ["used"]
    assert sweep_workspaces(project, keep=1, hours=0) == ["young"]
    assert sweep_workspaces(project, keep=1, hours=0) == []


def test_sweep_goes_by_the_last_write_not_by_the_name(project: Path, toys: Mapping[str, Any]) -> None:
    _aged(project, "a-long-run", 50.0)
    (project / "artifacts/workspaces/a-long-run/dvc.lock").touch()
    _aged(project, "b", 30.0)
    assert sweep_workspaces(project, keep=1, hours=24) == ["b"]


def test_sweep_takes_what_a_killed_run_left_half_made(project: Path, toys: Mapping[str, Any]) -> None:
    orphan = project / "artifacts/workspaces/orphan/.dvc"
    orphan.mkdir(parents=True)
    for path in (orphan, orphan.parent):
        os.utime(path, (1e9, 1e9))
    create_workspace(project, "first", Settings())
    assert sweep_workspaces(project, keep=1, hours=0) == ["orphan"]


def test_sweep_takes_the_workspace_of_a_killed_process(project: Path, toys: Mapping[str, Any]) -> None:
    """The mark of use ends with its process."""
    workspace = _aged(project, "killed", 30.0)
    create_workspace(project, "newer", Settings())
    code = (
        "import sys, time; from pathlib import Path; from gkd_core.versioning.workspace import workspace_in_use\n"
        "with workspace_in_use(Path(sys.argv[1])): print(flush=True); time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(workspace)], stdout=subprocess.PIPE) as run:
        assert run.stdout is not None
        run.stdout.readline()
        assert sweep_workspaces(project, keep=1, hours=24) == []
        run.kill()
    assert sweep_workspaces(project, keep=1, hours=24) == ["killed"]


def test_several_sweep_at_once_without_harm(project: Path, toys: Mapping[str, Any]) -> None:
    for number in range(6):
        _aged(project, f"old-{number}", 30.0 + number)
    with ThreadPoolExecutor(4) as pool:
        swept = list(pool.map(lambda _: sweep_workspaces(project, keep=2, hours=1), range(8)))
    assert sorted(name for names in swept for name in names) == ["old-2", "old-3", "old-4", "old-5"]
    assert _left(project) == {"old-0", "old-1"}


def test_sweep_while_a_run_writes_in_its_workspace(project: Path, workspace: Path) -> None:
    """A file that is renamed to its place between the listing and the look is no error."""
    over = threading.Event()

    def write() -> None:
        while not over.is_set():
            with atomic_file(workspace / "pins.json") as temporary:
                temporary.touch()

    with workspace_in_use(workspace), ThreadPoolExecutor(1) as pool:
        writing = pool.submit(write)
        try:
            assert {len(sweep_workspaces(project, keep=0, hours=0)) for _ in range(500)} == {0}
        finally:
            over.set()
        writing.result()


def test_sweep_leaves_checkpoints_and_the_cache(project: Path, workspace: Path) -> None:
    kept = [project / "artifacts/runs/stage", project / ".dvc/cache/files"]
    for folder in kept:
        folder.mkdir(parents=True)
    _aged(project, "old", 30.0)
    (workspace / "fresh").touch()
    assert sweep_workspaces(project, keep=1, hours=0) == ["old"]
    assert all(folder.is_dir() for folder in kept)


def test_report_is_published_whole(project: Path, workspace: Path) -> None:
    old = project / "artifacts/report"
    old.mkdir(parents=True)
    (old / "stale.txt").touch()
    report = workspace / "artifacts/report"
    report.mkdir()
    (report / "summary.md").write_text("new")
    assert publish_report(workspace, project) == old
    assert [path.name for path in old.iterdir()] == ["summary.md"]


def test_an_evaluations_report_has_a_place_of_its_own(project: Path, workspace: Path) -> None:
    report = workspace / "artifacts/report"
    report.mkdir()
    (report / "summary.md").write_text("new")
    assert publish_report(workspace, project, Path("artifacts/evaluation")) == project / "artifacts/evaluation"
    assert not (project / "artifacts/report").exists()


def test_a_bundle_is_published_at_its_own_place_and_others_stay(project: Path, workspace: Path) -> None:
    old = project / "artifacts/bundle/cityscapes/manifest.json"
    old.parent.mkdir(parents=True)
    old.touch()
    (workspace / "artifacts/bundle/gta5").mkdir(parents=True)
    (workspace / "artifacts/bundle/gta5/manifest.json").write_text("{}")
    place = Path("artifacts/bundle/gta5")
    assert publish(workspace, project, place) == project / place
    assert (project / place / "manifest.json").read_text() == "{}" and old.exists()


def test_reports_published_at_once_are_each_whole(project: Path, toys: Mapping[str, Any]) -> None:
    """Whoever comes last; never a mixture, and no error."""
    workspaces = [create_workspace(project, name, Settings()) for name in ("a", "b", "c")]
    for workspace in workspaces:
        (workspace / "artifacts/report").mkdir()
        for part in range(20):
            (workspace / f"artifacts/report/{part}").write_text(workspace.name)
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda number: publish_report(workspaces[number % 3], project), range(60)))
    contents = {path.read_text() for path in (project / "artifacts/report").iterdir()}
    assert len(contents) == 1 and len(list((project / "artifacts/report").iterdir())) == 20
    assert not [path for path in (project / "artifacts").iterdir() if path.name.startswith(".")]
