"""The stages of a tiny run on prepared shards, held against the same run on the folders that they were prepared from."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gkd_core.data.catalog.load import load_catalog
from gkd_core.data.preparing.building import prepare_domains
from gkd_core.errors import DataError, SettingsError
from gkd_core.records import MANIFEST, DataManifest, ScoreTable, sha256_of
from gkd_core.settings import Settings, dump_settings, settings_from_tree
from gkd_core.stages import Recipe, run_stage
from gkd_core.stages.origin import data_root
from gkd_core.versioning.recipe import render

WEIGHTS = (
    "distill-proxy/encoder.safetensors",
    "distill-proxy/objective.safetensors",
    "distill-source/gta5/encoder.safetensors",
    "learn-task/gta5/segmentor.safetensors",
)


def settings_of(tree: dict[str, Any], **data: Any) -> Settings:
    pictures = {"illustrate": {"images": 1, "pixels": 64}}
    return settings_from_tree(tree | pictures | {"data": tree["data"] | {"benchmarks": ["G2M"]} | data})


def prepare(settings: Settings, workspace: Path, output: Path, shrink: bool) -> None:
    recipe = Recipe.of(settings)
    trained = {domain.reference for domain in recipe.trained_domains}
    prepare_domains(
        recipe.domains,
        workspace / data_root(settings),
        output,
        shrunk=[name for name in (domain.reference for domain in recipe.domains) if shrink and name not in trained],
        shard_bytes=12_000,
        jobs=1,
        bar=lambda title, total: nullcontext(lambda done: None),
        say=lambda line: None,
    )


@pytest.fixture(scope="module")
def folder_run(tiny_tree: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The workspace of a finished run on folders, with its data prepared in `shards`, and shrunk in `shrunk`."""
    workspace, settings = tmp_path_factory.mktemp("folders"), settings_of(tiny_tree)
    for run in Recipe.of(settings).plan:
        run_stage(Recipe.of(settings), run, workspace)
    prepare(settings, workspace, workspace / "shards", shrink=False)
    prepare(settings, workspace, workspace / "shrunk", shrink=True)
    return workspace


@pytest.fixture
def on_shards(folder_run: Path, tiny_tree: dict[str, Any], tmp_path: Path) -> Settings:
    """Settings of the same run on shards, in the workspace `tmp_path`."""
    (tmp_path / "shards").symlink_to(folder_run / "shards")
    return settings_of(tiny_tree, world=None, shards="shards")


def test_training_and_scores_are_the_same_bit_for_bit(folder_run: Path, on_shards: Settings, tmp_path: Path) -> None:
    for run in Recipe.of(on_shards).plan:
        run_stage(Recipe.of(on_shards), run, tmp_path)
    pictures = [f"illustrate/gta5/{name}.png" for name in ("panel-gta5-val", "panel-mapillary-val", "features", "attention")]
    bundle = [f"bundle/gta5/{name}" for name in (MANIFEST, "MODEL_CARD.md", "student.safetensors")]
    for name in (
        *WEIGHTS,
        "learn-task/gta5/labelled.txt",
        "evaluate/gta5/confusion.json",
        *bundle,
        "report/matrix.csv",
        *pictures,
    ):
        assert sha256_of(tmp_path / "artifacts" / name) == sha256_of(folder_run / "artifacts" / name), name
    ours, theirs = (DataManifest.read(path / "artifacts/data" / MANIFEST).versions for path in (tmp_path, folder_run))
    assert [(v.dataset, v.split, v.images, v.labels) for v in ours] == [(v.dataset, v.split, v.images, v.labels) for v in theirs]


def test_how_long_training_waited_for_data_is_a_metric_of_both_stages(folder_run: Path) -> None:
    """Lines of `metrics.jsonl` are what a flow run logs to MLflow, each under its name."""
    for stage in ("distill-proxy", "distill-source-gta5", "learn-task-gta5"):
        (file,) = (folder_run / "artifacts" / "runs").glob(f"{stage}-*/metrics.jsonl")
        shares = [json.loads(line)["waiting_share"] for line in file.read_text().splitlines()]
        assert shares and all(0 < share < 1 for share in shares)


WATCHED = """
import json, os, sys
opened = {}
def watch(event, args):
    if event == "open" and isinstance(args[0], (str, os.PathLike)) and "shards" in os.fspath(args[0]):
        opened.setdefault(stage, []).append(os.fspath(args[0]))
stage = "import"
sys.addaudithook(watch)
from pathlib import Path
from gkd_core.settings import load_settings
from gkd_core.stages import Recipe, run_stage
settings = load_settings(Path("params.yaml"))
for stage in sys.argv[1:]:
    run_stage(Recipe.of(settings), Recipe.of(settings).find(stage, "gta5"), Path.cwd())
result = json.dumps(opened)
Path("opened.json").write_text(result)
"""


def test_stage_one_opens_no_shard_of_labels(folder_run: Path, on_shards: Settings, tmp_path: Path) -> None:
    (tmp_path / "artifacts").mkdir()
    (tmp_path / "artifacts/distill-proxy").symlink_to(folder_run / "artifacts/distill-proxy")
    (tmp_path / "params.yaml").write_text(dump_settings(on_shards))
    command = [sys.executable, "-c", WATCHED, "distill-source", "learn-task"]
    subprocess.run(command, cwd=tmp_path, check=True, timeout=280, capture_output=True)
    opened = {
        stage: {"/".join(Path(name).parts[-4:-1]) for name in names if name.endswith((".tar", ".json"))}
        for stage, names in json.loads((tmp_path / "opened.json").read_text()).items()
    }
    assert opened["distill-source"] == {"gta5/train/images"}
    assert opened["learn-task"] == {"gta5/train/images", "gta5/train/labels"}, "the watch is awake"


def test_each_stage_depends_on_the_sets_that_it_reads(on_shards: Settings) -> None:
    inputs = {run.name: {str(path) for path in run.inputs if path.parts[0] == "shards"} for run in Recipe.of(on_shards).plan}
    assert inputs["distill-proxy"] == {"shards/proxy/all/images"}
    assert inputs["distill-source-gta5"] == {"shards/gta5/train/images"}
    assert inputs["learn-task-gta5"] == {"shards/gta5/train/images", "shards/gta5/train/labels"}
    measured = {f"shards/{name}/val/{content}" for name in ("gta5", "mapillary") for content in ("images", "labels")}
    assert inputs["evaluate-gta5"] == inputs["illustrate-gta5"] == measured
    assert inputs["prepare-data"] == inputs["distill-proxy"] | inputs["learn-task-gta5"] | measured
    assert "shards/mapillary/val/labels" in render(on_shards)


def test_shrunk_images_are_not_scaled_twice(
    folder_run: Path, on_shards: Settings, tiny_tree: dict[str, Any], tmp_path: Path
) -> None:
    """Mapillary's protocol halves images and labels: every scored pixel is the same, and so is the protocol of the score."""
    (tmp_path / "artifacts").mkdir()
    (tmp_path / "artifacts/learn-task").symlink_to(folder_run / "artifacts/learn-task")
    shrunk = settings_of(tiny_tree, world=None, shards=str(folder_run / "shrunk"))
    run_stage(Recipe.of(shrunk), Recipe.of(shrunk).find("evaluate", "gta5"), tmp_path)
    ours, theirs = (path / "artifacts/evaluate/gta5" for path in (tmp_path, folder_run))
    one, other = (np.array(json.loads((folder / "confusion.json").read_text())["mapillary/val"]) for folder in (ours, theirs))
    assert other.sum() > 1000
    assert np.array_equal(one.sum(axis=1), other.sum(axis=1)), "the same labels"
    assert np.abs(one - other).sum() < 0.02 * other.sum(), "predictions differ by the rounding to whole grey levels alone"
    score, full = (ScoreTable.read(folder / "scores.json").scores[1] for folder in (ours, theirs))
    assert score.protocol == full.protocol and score.protocol.scale == 0.5 and score.protocol.labels_resized


def test_a_run_does_not_train_on_shrunk_images(folder_run: Path, tiny_tree: dict[str, Any], tmp_path: Path) -> None:
    index = json.loads((folder_run / "shards/gta5/train/images/index.json").read_text())
    index["preparation"]["protocol"] = load_catalog().dataset("gta5").protocol.model_dump()
    (tmp_path / "shards/gta5/train/images").mkdir(parents=True)
    (tmp_path / "shards/gta5/train/images/index.json").write_text(json.dumps(index))
    shrunk = settings_of(tiny_tree, world=None, shards="shards")
    with pytest.raises(DataError, match="gta5/train: prepared at the size at which it is evaluated, but this run trains on it"):
        run_stage(Recipe.of(shrunk), Recipe.of(shrunk).find("distill-source", "gta5"), tmp_path)


def test_streaming_trains_in_another_order_and_is_part_of_the_result(
    folder_run: Path, on_shards: Settings, tiny_tree: dict[str, Any], tmp_path: Path
) -> None:
    streaming = settings_of(tiny_tree, world=None, shards="shards", streaming={"lanes": 2, "window": 1})
    (tmp_path / "artifacts").mkdir()
    (tmp_path / "artifacts/distill-proxy").symlink_to(folder_run / "artifacts/distill-proxy")
    for run in (Recipe.of(streaming).find("distill-source", "gta5"), Recipe.of(streaming).find("learn-task", "gta5")):
        assert "data.streaming" in run.params
        run_stage(Recipe.of(streaming), run, tmp_path)
    name = "distill-source/gta5/encoder.safetensors"
    assert sha256_of(tmp_path / "artifacts" / name) != sha256_of(folder_run / "artifacts" / name)


def test_without_shards_there_is_nothing_to_stream(tiny_tree: dict[str, Any], on_shards: Settings) -> None:
    with pytest.raises(SettingsError, match="streaming needs shards"):
        settings_of(tiny_tree, streaming={"lanes": 2})
    with pytest.raises(SettingsError, match=r"data\.shards: this needs the datasets as they unpack"):
        data_root(on_shards)
