"""Several sources mixed, and a fraction of their labels, through every stage."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from dvc.stage.utils import is_valid_name

from gkd_core.data.catalog.load import load_catalog
from gkd_core.errors import DataError
from gkd_core.planning.work import plan_work
from gkd_core.records import MANIFEST, DataManifest, ScoreTable, SegmentorCheckpoint
from gkd_core.settings import Settings, load_settings, settings_from_tree
from gkd_core.stages import Recipe, run_stage

CATALOG = """
benchmarks:
  mixed:
    title: two sources
    source: {gta5/train: 1, cityscapes/train: 2}
    validation: gta5/val
    targets: {bdd100k: bdd100k/val}
  otherwise:
    title: two sources, weighed otherwise
    source: {gta5/train: 2, cityscapes/train: 1}
    validation: gta5/val
    targets: {bdd100k: bdd100k/val}
"""


@pytest.fixture(scope="module")
def catalog_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("catalog") / "mixed.yaml"
    path.write_text(CATALOG)
    return path


def with_data(tree: dict[str, Any], catalog: Path, **task: object) -> Settings:
    data = tree["data"] | {"catalogs": [str(catalog)], "benchmarks": ["mixed"]}
    return settings_from_tree(tree | {"data": data, "learn_task": tree["learn_task"] | task})


@pytest.fixture(scope="module")
def workspace(tiny_tree: dict[str, Any], catalog_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run on the mix, with half of the labels."""
    workspace = tmp_path_factory.mktemp("mixed")
    settings = with_data(tiny_tree, catalog_file, label_fraction=0.5)
    for run in Recipe.of(settings).plan:
        run_stage(Recipe.of(settings), run, workspace)
    return workspace


def learnt(workspace: Path) -> list[str]:
    return (workspace / "artifacts/learn-task/gta5_cityscapes/labelled.txt").read_text().splitlines()


def test_a_mix_goes_through_every_stage(workspace: Path) -> None:
    (in_domain, target) = ScoreTable.read(workspace / "artifacts/report/matrix.json").scores
    assert (in_domain.dataset, target.dataset) == ("gta5/val", "bdd100k/val")
    assert in_domain.source == target.source == "gta5_cityscapes"
    record = SegmentorCheckpoint.read(workspace / "artifacts/learn-task/gta5_cityscapes" / MANIFEST)
    assert (record.source, record.taxonomy, len(record.classes)) == ("gta5_cityscapes", "cityscapes-19", 19)
    versions = DataManifest.read(workspace / "artifacts/data" / MANIFEST).versions
    assert {f"{version.dataset}/{version.split}" for version in versions} == {
        "proxy/all", "gta5/train", "cityscapes/train", "gta5/val", "bdd100k/val"
    }  # fmt: skip


def test_the_list_of_labels_is_an_output_and_smaller_fractions_lie_within(
    workspace: Path, tiny_tree: dict[str, Any], catalog_file: Path, tmp_path: Path
) -> None:
    """Six images each: three of each part at a half, one at a sixth, from the same stage one."""
    half = learnt(workspace)
    assert [sum(name.startswith(part) for name in half) for part in ("gta5/images/", "cityscapes/leftImg8bit/train/")] == [3, 3]
    assert all((workspace / "artifacts/data" / name).is_file() for name in half)
    (tmp_path / "artifacts").mkdir()
    for name in ("data", "distill-source"):
        (tmp_path / "artifacts" / name).symlink_to(workspace / "artifacts" / name)
    settings = with_data(tiny_tree, catalog_file, label_fraction=1 / 6)
    run_stage(Recipe.of(settings), Recipe.of(settings).find("learn-task", "gta5_cityscapes"), tmp_path)
    sixth = learnt(tmp_path)
    assert len(sixth) == 2
    assert set(sixth) < set(half)


def test_stage_one_sees_all_images_whatever_the_fraction(tiny_tree: dict[str, Any], catalog_file: Path) -> None:
    whole, part = (with_data(tiny_tree, catalog_file, label_fraction=fraction) for fraction in (1, 0.25))
    for settings in (whole, part):
        run = Recipe.of(settings).find("distill-source", "gta5_cityscapes")
        assert not any(key.startswith("learn_task") for key in run.params)
    works = [
        {work.name: work.images for work in plan_work(Recipe(settings, load_catalog([catalog_file])), Path())}
        for settings in (whole, part)
    ]
    assert [work["distill-source-gta5_cityscapes"] for work in works] == [12, 12]
    assert [work["learn-task-gta5_cityscapes"] for work in works] == [12, 4], "of 6 a quarter, rounded, of each"


def test_stages_of_a_mix_depend_on_the_files_of_every_part() -> None:
    settings = load_settings(None, "demo", ["data.benchmarks=[GSU2C]"])
    runs = {run.name: run for run in Recipe.of(settings).plan}
    name = "distill-source-gta5_synthia_urbansyn"
    root = Path("artifacts/data")
    images = {root / "gta5/images", root / "gta5/train.txt", root / "synthia/RAND_CITYSCAPES/RGB", root / "urbansyn/rgb"}
    assert images == set(runs[name].inputs) - {Path("artifacts/distill-proxy")}
    labels = {root / "gta5/labels", root / "synthia/RAND_CITYSCAPES/GT/LABELS", root / "urbansyn/ss"}
    assert set(runs["learn-task-gta5_synthia_urbansyn"].inputs) == images | labels | {Path("artifacts", *name.rsplit("-", 1))}
    assert all(is_valid_name(run) for run in runs), "DVC takes these names"
    assert {domain.reference for domain in Recipe.of(settings).domains} == {
        "proxy/all", "gta5/train", "synthia/all", "urbansyn/all", "gta5/val", "cityscapes/val"
    }  # fmt: skip


def test_weights_are_a_dependency_where_they_are_stated(tiny_tree: dict[str, Any], catalog_file: Path) -> None:
    """Names and files of two mixes may be the same while their weights are not."""
    for stage in ("distill-source", "learn-task"):
        assert "data.benchmarks" in Recipe.of(with_data(tiny_tree, catalog_file)).find(stage, "gta5_cityscapes").params
        unweighted = load_settings(None, "demo", ["data.benchmarks=[GS2C]"])
        assert "data.benchmarks" not in Recipe.of(unweighted).find(stage, "gta5_synthia").params


def test_two_sources_of_one_name_are_refused(tiny_tree: dict[str, Any], catalog_file: Path) -> None:
    data = tiny_tree["data"] | {"catalogs": [str(catalog_file)], "benchmarks": ["mixed", "otherwise"]}
    with pytest.raises(
        DataError, match="benchmark 'otherwise': learns from 2 x gta5/train .* stages would call both 'gta5_cityscapes'"
    ):
        list(Recipe.of(settings_from_tree(tiny_tree | {"data": data})).plan)
