"""Domains as MLflow's dataset inputs: their digests are those of the pins, or what DVC found."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from gkd_core.settings import Settings, load_settings
from gkd_core.stages import Recipe
from gkd_core.tracking.datasets import dataset_inputs, version_tags
from gkd_core.versioning.pins import Pin, PinnedInputs

PIN = Pin(path="data/cityscapes", md5="c1.dir", files=2, bytes=10, revision="0123456789abcdef")
LOOSE = Pin(path="data/yard (old)", md5="c2.dir", files=2, bytes=10)


def lock(workspace: Path, deps: Mapping[str, str]) -> None:
    entry = {"cmd": "x", "deps": [{"path": path, "md5": md5} for path, md5 in deps.items()]}
    stage = entry | {"outs": [{"path": "artifacts/data", "md5": "da7a.dir"}]}
    (workspace / "dvc.lock").write_text(yaml.safe_dump({"schema": "2.0", "stages": {"prepare-data": stage}}))


def inputs(settings: Settings, stage: str, source: str, pinned: PinnedInputs, workspace: Path) -> dict[str, Any]:
    recipe = Recipe.of(settings)
    found = dataset_inputs(recipe, recipe.find(stage, source), pinned, workspace)
    return {item.dataset.name: item for item in found}


def test_pinned_and_unpinned_domains(tmp_path: Path) -> None:
    settings = load_settings(None, "demo", ["data.world=null", "data.root=data", "data.benchmarks=[C2A]"])
    lock(tmp_path, {"data/proxy": "ff.dir", "data/cityscapes": "c1.dir", "data/acdc": "ac.dir"})
    found = inputs(settings, "evaluate", "cityscapes", PinnedInputs(pins=(PIN,), unpinned=("data/acdc",)), tmp_path)
    pinned, night = found["cityscapes/val"], found["acdc-night/val"]
    assert found.keys() == {"cityscapes/val", *(f"acdc-{name}/val" for name in ("night", "snow", "fog", "rain"))}
    assert (pinned.dataset.digest, pinned.dataset.source) == ("c1", "data/cityscapes.dvc@0123456789abcdef")
    assert json.loads(pinned.dataset.profile) == PIN.model_dump(mode="json")
    assert (night.dataset.digest, night.dataset.source) == ("ac", "data/acdc")
    assert {tag.key: tag.value for tag in pinned.tags} == {"mlflow.data.context": "validation", "pinned": "true"}
    assert {tag.key: tag.value for tag in night.tags} == {"mlflow.data.context": "target", "pinned": "false"}


def test_the_rendered_world_is_known_by_what_prepare_data_wrote(tmp_path: Path) -> None:
    settings = load_settings(None, "demo")
    lock(tmp_path, {})
    found = inputs(settings, "learn-task", "gta5", PinnedInputs(), tmp_path)
    assert [(name, item.dataset.digest) for name, item in found.items()] == [("gta5/train", "da7a")]


def test_tags_are_short_and_their_names_are_taken() -> None:
    assert version_tags(PinnedInputs(pins=(PIN, LOOSE), unpinned=("/mnt/x",))) == {
        "data.data/cityscapes": "c1 (git 0123456789)",
        "data.data/yard _old_": "c2 (not committed)",
        "data./mnt/x": "unpinned",
    }
