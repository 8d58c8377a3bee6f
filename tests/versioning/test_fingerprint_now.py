"""The fingerprint before a run is the one that the run will have: pins, and DVC's digests of what has none."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from gkd_core.data.world.writer import write_world
from gkd_core.settings import Settings, settings_from_tree
from gkd_core.stages import Recipe
from gkd_core.stages.fingerprint import differences
from gkd_core.versioning.fingerprint_now import fingerprint_now, input_digests_now
from gkd_core.versioning.recipe import input_digests
from gkd_core.versioning.workspace import WORKSPACES, anchor_paths, create_workspace
from tests.reproducing import reproduce


@pytest.fixture
def settings(tiny_tree: Mapping[str, Any]) -> Settings:
    weights = {role: tiny_tree[role] | {"weights": "random"} for role in ("teacher", "student")}
    return settings_from_tree({**tiny_tree, **weights, "data": {"world": None, "root": "data", "benchmarks": ["P2R"]}})


@pytest.fixture
def project(tmp_path: Path, tiny_tree: Mapping[str, Any]) -> Path:
    """A project with unpinned data, but for `proxy`, which has a pin."""
    world = settings_from_tree({**tiny_tree, "data": tiny_tree["data"]}).data.world
    assert world is not None
    write_world(world, tmp_path / "data")
    _pin(tmp_path, "a" * 32 + ".dir")
    (tmp_path / ".dvc").mkdir()
    return tmp_path


def _pin(project: Path, md5: str) -> None:
    out = {"md5": md5, "size": 1, "nfiles": 6, "hash": "md5", "path": "proxy"}
    (project / "data" / "proxy.dvc").write_text(yaml.safe_dump({"outs": [out]}))


def test_digests_are_those_of_the_lock_file(project: Path, settings: Settings) -> None:
    workspace = create_workspace(project, "run", settings)
    prepare = Recipe.of(anchor_paths(settings, project)).find("prepare-data")
    reproduce(workspace, prepare)
    expected = input_digests(workspace, prepare)
    assert len(expected) >= 3
    assert input_digests_now(project, settings, [Path(path) for path in expected]) == expected
    assert [path.name for path in (project / WORKSPACES).iterdir()] == ["run"], "the look leaves nothing"


def test_changes_are_seen_and_named(project: Path, settings: Settings) -> None:
    before = fingerprint_now(project, settings)
    assert before.data["data/proxy"] == "a" * 32 + ".dir"
    assert not [path for path in before.data if path.startswith("data/proxy/")], "what a pin covers is not looked at"
    assert fingerprint_now(project, settings) == before
    image = next(path for path in sorted((project / "data" / "vaihingen").rglob("*")) if path.is_file())
    image.write_bytes(image.read_bytes() + b"more")
    _pin(project, "b" * 32 + ".dir")
    changed = differences(before, fingerprint_now(project, settings))
    assert f"the data changed: data/proxy: {'a' * 32}.dir → {'b' * 32}.dir" in changed
    others = [line for line in changed if "data/proxy" not in line]
    assert others and all(line.startswith("the data changed: data/vaihingen") for line in others)


def test_a_rendered_world_has_no_data_to_look_at(tmp_path: Path, tiny_settings: Settings) -> None:
    student = tiny_settings.student.model_copy(update={"weights": "random"})
    teacher = tiny_settings.teacher.model_copy(update={"weights": "random"})
    found = fingerprint_now(tmp_path, tiny_settings.model_copy(update={"student": student, "teacher": teacher}))
    assert found.data == {} and found.recipe["data"]["world"]["train_images"] == 6
    assert not (tmp_path / WORKSPACES).exists()
