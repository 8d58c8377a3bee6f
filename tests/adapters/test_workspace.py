"""Workspaces: what is in one, what they share, and which are swept."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from gkd_core.adapters.workspace import anchor_paths, create_workspace, publish_report, sweep_workspaces, workspace_in_use
from gkd_core.errors import PlatformError
from gkd_core.settings import Settings, load_settings, settings_from_tree


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


def test_sweep_keeps_the_newest_and_those_in_use(project: Path, toys: Mapping[str, Any]) -> None:
    for age, name in enumerate(("new", "middle", "old", "used")):
        workspace = create_workspace(project, name, Settings())
        os.utime(workspace, (1e9 - age, 1e9 - age))
    with workspace_in_use(project / "artifacts/workspaces/used"):
        assert sweep_workspaces(project, keep=1) == ["middle", "old"]
    assert sweep_workspaces(project, keep=1) == ["used"]
    assert [path.name for path in (project / "artifacts/workspaces").iterdir()] == ["new"]


def test_sweep_leaves_checkpoints(project: Path, workspace: Path) -> None:
    (project / "artifacts/runs/stage").mkdir()
    sweep_workspaces(project, keep=0)
    assert (project / "artifacts/runs/stage").is_dir()


def test_report_is_published_whole(project: Path, workspace: Path) -> None:
    old = project / "artifacts/report"
    old.mkdir(parents=True)
    (old / "stale.txt").touch()
    report = workspace / "artifacts/report"
    report.mkdir()
    (report / "summary.md").write_text("new")
    assert publish_report(workspace, project) == old
    assert [path.name for path in old.iterdir()] == ["summary.md"]
