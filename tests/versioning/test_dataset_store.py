"""Datasets brought into a project from a folder or a bucket, and pinned."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest
from moto import mock_aws
from typer.testing import CliRunner

from gkd_core.cli import app
from gkd_core.data.catalog.load import load_catalog
from gkd_core.errors import DataError
from gkd_core.settings import settings_from_tree
from gkd_core.stages import Recipe
from gkd_core.versioning.dataset_store import DatasetStore
from gkd_core.versioning.pins import read_pin
from gkd_core.versioning.s3_datasets import add_from_s3

NAMES = [name for key in "ab" for name in (f"images/10k/val/{key}.jpg", f"labels/sem_seg/masks/val/{key}.png")]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    (folder / ".dvc").mkdir(parents=True)
    (folder / ".dvc" / "config").write_text("[core]\n    no_scm = true\n    analytics = false\n")
    return folder


@pytest.fixture
def store(project: Path) -> DatasetStore:
    return DatasetStore(project, Recipe.of(settings_from_tree({"data": {"world": None, "root": "data"}})))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "elsewhere"
    for name in NAMES:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    return folder


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "x")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    with mock_aws():
        boto3.client("s3").create_bucket(Bucket="raw")
        yield "raw"


def put(bucket: str, prefix: str, *names: str) -> None:
    for name in names:
        boto3.client("s3").put_object(Bucket=bucket, Key=f"{prefix}/{name}", Body=name.encode())


def test_a_folder_is_copied_and_pinned_and_the_original_stays(project: Path, store: DatasetStore, source: Path) -> None:
    pinned = store.add("bdd100k", source)
    assert pinned.pin == read_pin(project, "data/bdd100k")
    assert (pinned.pin.files, [split.domain for split in pinned.splits]) == (4, ["bdd100k/val"])
    assert all((project / "data/bdd100k" / name).read_text() == name == (source / name).read_text() for name in NAMES)
    with pytest.raises(DataError, match=r"data/bdd100k: is here already"):
        store.add("bdd100k", source)


def test_what_is_not_such_a_dataset_is_not_taken(project: Path, store: DatasetStore, source: Path) -> None:
    with pytest.raises(DataError, match="laid out unlike dataset 'cityscapes'"):
        store.add("cityscapes", source)
    (source / "labels/sem_seg/masks/val/b.png").unlink()
    with pytest.raises(DataError, match=r"b\.png: no such label file"):
        store.add("bdd100k", source)
    (source / "labels/sem_seg/masks/val/b.png").symlink_to("/etc/hostname")
    with pytest.raises(DataError, match=r"b\.png: a symbolic link"):
        store.add("bdd100k", source)
    assert not (project / "data").exists()


def test_objects_are_fetched_and_their_origin_is_noted(project: Path, store: DatasetStore, bucket: str) -> None:
    put(bucket, "bdd", *NAMES)
    first = add_from_s3(store, "bdd100k", "s3://raw/bdd").pin
    assert first.source == "s3://raw/bdd" and first.source_revision
    assert sorted(path.name for path in (project / "data").iterdir()) == ["bdd100k", "bdd100k.dvc"]
    assert all((project / "data/bdd100k" / name).read_text() == name for name in NAMES)
    (again,) = store.pin(["bdd100k"])
    assert again.pin == first, "pinned again, the origin stays"


@pytest.mark.parametrize("key", ["../evil", "../../evil", "/evil", "images/../../evil", "a//evil"])
def test_hostile_keys_are_refused_before_anything_is_fetched(project: Path, store: DatasetStore, bucket: str, key: str) -> None:
    put(bucket, "bdd", *NAMES, key)
    with pytest.raises(DataError, match="it would not be a file below the target"):
        add_from_s3(store, "bdd100k", "s3://raw/bdd")
    assert not (project / "data").exists()
    assert not list(project.parent.rglob("evil"))


def test_objects_of_another_layout_are_refused_by_their_names(project: Path, store: DatasetStore, bucket: str) -> None:
    put(bucket, "bdd", *NAMES[:-1])
    with pytest.raises(DataError, match=r"^s3://raw/bdd/.*no such label file"):
        add_from_s3(store, "bdd100k", "s3://raw/bdd")
    assert not (project / "data").exists()


@pytest.mark.parametrize("name", ["../elsewhere", "data/../../elsewhere", "/etc/x", "link/x"])
def test_nothing_outside_the_project_is_pinned(project: Path, store: DatasetStore, source: Path, name: str) -> None:
    (project / "link").symlink_to(source)
    with pytest.raises(DataError, match="does not lie below"):
        list(store.pin([name]))


def test_an_entry_whose_folder_leaves_the_root_is_refused(project: Path, source: Path) -> None:
    mine = project / "mine.yaml"
    mine.write_text("datasets: {x: {folder: ../../elsewhere, images: images/10k/val/*.jpg, splits: {all: {}}}}")
    with pytest.raises(DataError, match=r"datasets\.x\.folder: given '\.\./\.\./elsewhere'.* it has a segment '\.\.'"):
        load_catalog([mine])


def test_what_is_not_there_cannot_be_pinned(store: DatasetStore) -> None:
    with pytest.raises(DataError, match="data/bdd100k: nothing is there to pin"):
        list(store.pin(["bdd100k"]))


def test_data_outside_the_project_are_brought_into_data(project: Path) -> None:
    store = DatasetStore(project, Recipe.of(settings_from_tree({"data": {"world": None, "root": "../elsewhere"}})))
    assert store.path_of("bdd100k") == "data/bdd100k"


def test_shards_are_pinned_by_the_datasets_name(project: Path) -> None:
    store = DatasetStore(project, Recipe.of(settings_from_tree({"data": {"world": None, "shards": "data/shards"}})))
    assert store.path_of("acdc-night") == "data/shards/acdc-night"
    place = project / "data/shards/acdc-night/val/images"
    place.mkdir(parents=True)
    (place / "index.json").write_text("{}")
    with pytest.raises(DataError, match=r"index\.json"):
        list(store.pin(["acdc-night"]))


def test_the_commands_say_what_was_pinned_and_what_comes_next(
    project: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project)
    (project / "params.yaml").write_text("data: {world: null, root: data}\n")
    said = CliRunner().invoke(app, ["data", "add", "bdd100k", str(source)])
    assert said.exit_code == 0, said.output
    md5 = read_pin(project, "data/bdd100k").md5
    assert f"data/bdd100k: pinned as {md5}, 4 files" in said.output and "bdd100k/val: 2 images, 2 labels" in said.output
    assert "dvc push data/bdd100k.dvc" in said.output
    (check,) = (line for line in said.output.splitlines() if line.startswith("Check it:"))
    checked = CliRunner().invoke(app, [*check.split()[3:], "--jobs", "1"])
    assert "bdd100k/val: 2 images, 2 labels" in checked.output, checked.output
    assert f"pinned as {md5}" in CliRunner().invoke(app, ["data", "pin", "bdd100k"]).output
    assert f"data/bdd100k: as pinned, {md5}" in CliRunner().invoke(app, ["data", "fetch", "bdd100k"]).output
