"""What prepared shards hold, and when they are written."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image
from typer.testing import CliRunner

from gkd_core.cli import app
from gkd_core.data.catalog.load import Catalog, load_catalog
from gkd_core.data.files.blobs import read_bytes
from gkd_core.data.files.origin import Folders, LocalSets, Shards
from gkd_core.data.files.reading import list_images, list_pairs, read_image, read_pair
from gkd_core.data.files.shards import INDEX, ShardIndex
from gkd_core.data.preparing import building
from gkd_core.errors import DataError, SettingsError

Prepare = Callable[..., list[str]]
Digests = Callable[[Path], dict[str, str]]
TRAIN_IDS = {0: 255, 7: 0, 24: 1, 300: 2}


def test_images_stay_as_they_are_and_labels_become_train_ids(
    prepare: Prepare, catalog: Catalog, yard: Path, tmp_path: Path
) -> None:
    prepare(tmp_path / "out")
    domain = catalog.domain("yard/both")
    origin, paths = Shards(LocalSets(tmp_path / "out")), list_pairs(domain.entry, yard, "both")
    images, pairs = origin.images(domain), origin.pairs(domain)
    assert [read_bytes(image) for image in images] == [pair.image.read_bytes() for pair in paths]  # type: ignore[union-attr]
    assert [origin.name(domain, image) for image in images] == [Folders(yard).name(domain, pair.image) for pair in paths]
    encoding = origin.encoding(domain)
    for pair, path in zip(pairs, paths, strict=True):
        pixels, ids = read_pair(pair, encoding)
        assert np.array_equal(pixels, read_image(path.image))
        assert isinstance(path.label, Path)
        original = np.asarray(Image.open(path.label)).astype(int)
        assert ids.tolist() == [[TRAIN_IDS[value] for value in row] for row in original.tolist()]


def test_a_shard_is_a_random_sample_and_an_ordinary_tar(prepare: Prepare, tmp_path: Path) -> None:
    prepare(tmp_path / "out")
    for content in ("images", "labels"):
        folder = tmp_path / "out" / "yard" / "both" / content
        index = ShardIndex.read(folder / INDEX)
        held = []
        for shard in index.shards:
            shard.check(folder / shard.name)
            with tarfile.open(folder / shard.name) as tar:
                infos = tar.getmembers()
            assert {(info.mtime, info.uid, info.gid, info.uname, info.mode) for info in infos} == {(0, 0, 0, "", 0o644)}
            listed = subprocess.run(["tar", "tf", folder / shard.name], capture_output=True, text=True, check=True).stdout
            assert listed.split() == [info.name for info in infos]
            held.append([info.name for info in infos])
        assert sorted(name for names in held for name in names) == sorted(index.members.names)
        assert [name for names in held for name in names] != list(index.members.names)
        if content == "images":
            assert len(held) > 2
            assert all(shard.bytes <= 4_000 + tarfile.RECORDSIZE for shard in index.shards)
            assert any(len({Path(name).parent.name for name in names}) == 2 for names in held), "folders are mixed"


def test_bytes_follow_from_the_files_alone(prepare: Prepare, yard: Path, tmp_path: Path, digests: Digests) -> None:
    prepare(tmp_path / "one")
    for path in yard.rglob("*.*"):
        os.utime(path, (1, 1))
    prepare(tmp_path / "two", jobs=2)
    assert digests(tmp_path / "one") == digests(tmp_path / "two")
    assert not [name for name in digests(tmp_path / "one") if "partial" in name or "part-" in name]


def test_a_finished_set_is_left_alone_until_its_files_change(prepare: Prepare, yard: Path, tmp_path: Path) -> None:
    first = prepare(tmp_path / "out")
    assert first[0].startswith("yard/both/images: 14 files in ")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")}
    again = prepare(tmp_path / "out")
    assert [line.split(" (")[0] for line in again] == ["yard/both/images: up to date", "yard/both/labels: up to date"]
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")}
    label = yard / "yard/labels/summer/003_ids.png"
    content = label.read_bytes()
    label.write_bytes(content)  # the same size, a later time
    with pytest.raises(DataError, match=r"yard/both/labels: was prepared from other files or with other options"):
        prepare(tmp_path / "out")
    shutil.rmtree(tmp_path / "out/yard/both/labels")
    assert "up to date" in prepare(tmp_path / "out")[0]


def test_other_options_are_refused_and_a_cut_shard_is_found(prepare: Prepare, tmp_path: Path, digests: Digests) -> None:
    prepare(tmp_path / "out")
    before = digests(tmp_path / "out")
    for options in ({"shard_bytes": 9_000}, {"shrunk": ["yard/both"]}):
        with pytest.raises(DataError, match="with other options"):
            prepare(tmp_path / "out", **options)
    assert digests(tmp_path / "out") == before
    shard = next((tmp_path / "out/yard/both/images").glob("*.tar"))
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(DataError, match=r"\.tar: missing or cut short; remove .* and prepare it again"):
        prepare(tmp_path / "out")


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_bad_file_is_named_and_nothing_is_seen_of_its_set(prepare: Prepare, yard: Path, tmp_path: Path, jobs: int) -> None:
    label = yard / "yard/labels/autumn/002_ids.png"
    label.write_bytes(label.read_bytes()[:60])
    with pytest.raises(DataError, match=r"autumn/002_ids\.png: cannot be decoded .*; gkd data verify yard/both finds all"):
        prepare(tmp_path / "out", jobs=jobs)
    assert [path.name for path in (tmp_path / "out/yard/both").iterdir() if not path.name.startswith(".")] == ["images"]


def test_a_label_of_another_size_is_named(prepare: Prepare, yard: Path, tmp_path: Path) -> None:
    Image.fromarray(np.zeros((8, 8), dtype=np.uint8)).save(yard / "yard/labels/autumn/002_ids.png")
    with pytest.raises(DataError, match=r"002_ids\.png: 8 x 8 pixels .* has 16 x 24"):
        prepare(tmp_path / "out")


def test_a_name_that_no_shard_can_have_is_refused(prepare: Prepare, yard: Path, tmp_path: Path) -> None:
    (yard / "yard/images/summer/000.jpg").rename(yard / "yard/images/summer/a\nb.jpg")
    with pytest.raises(DataError, match="rename the file"):
        prepare(tmp_path / "out")


def test_a_full_disk_is_an_error_and_what_is_finished_is_kept(prepare: Prepare, tmp_path: Path, digests: Digests) -> None:
    prepare(tmp_path / "whole")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2_000, limits[1]))
    try:
        with pytest.raises(DataError, match=r"yard-both-images-00000: cannot be written \(File too large\); make room"):
            prepare(tmp_path / "out")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not (tmp_path / "out/yard/both/images").exists()
    prepare(tmp_path / "out")
    assert digests(tmp_path / "out") == digests(tmp_path / "whole")


def test_unfinished_work_is_taken_up_where_it_is_whole(
    prepare: Prepare, yard: Path, tmp_path: Path, digests: Digests, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A part that was damaged meanwhile is made anew; work on other files, which can never be finished, goes."""
    monkeypatch.setattr("gkd_core.data.preparing.building.PART_FILES", 4)
    prepare(tmp_path / "whole")
    stale = tmp_path / "out/yard/both/.labels.0123456789abcdef.partial"
    stale.mkdir(parents=True)
    label = yard / "yard/labels/autumn/004_ids.png"
    content, status = label.read_bytes(), label.stat()
    label.write_bytes(bytes(len(content)))
    os.utime(label, ns=(status.st_atime_ns, status.st_mtime_ns))
    with pytest.raises(DataError, match="004_ids"):
        prepare(tmp_path / "out")
    label.write_bytes(content)
    os.utime(label, ns=(status.st_atime_ns, status.st_mtime_ns))
    parts = sorted((tmp_path / "out/yard/both").glob(".labels.*/part-*.tar"))
    assert len(parts) == 3 and not stale.exists()
    parts[0].write_bytes(parts[0].read_bytes().replace(b"IDAT", b"XDAT"))
    made: list[str] = []
    real = building.write_tar
    monkeypatch.setattr(building, "write_tar", lambda folder, stem, members: made.append(stem) or real(folder, stem, members))
    prepare(tmp_path / "out")
    assert [stem for stem in made if stem.startswith("part")] == ["part-00000000", "part-00000012"]
    assert digests(tmp_path / "out") == digests(tmp_path / "whole")


def test_two_at_once_do_not_meet(prepare: Prepare, tmp_path: Path) -> None:
    import fcntl

    (tmp_path / "out/yard/both").mkdir(parents=True)
    handle = os.open(tmp_path / "out/yard/both", os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    try:
        with pytest.raises(DataError, match="another gkd data prepare is writing it"):
            prepare(tmp_path / "out")
    finally:
        os.close(handle)
    assert len(prepare(tmp_path / "out")) == 2


def test_shards_of_changed_declarations_are_refused(prepare: Prepare, catalog: Catalog, tmp_path: Path) -> None:
    """A table, classes or a protocol that the catalog has changed since: reading would mean something else."""
    prepare(tmp_path / "out", shrunk=["yard/both"])
    origin, domain = Shards(LocalSets(tmp_path / "out")), catalog.domain("yard/both")
    assert origin.protocol(domain) is None
    table = catalog.encodings["yard-ids"]
    swapped = table.model_copy(update={"ids": {0: 255, 7: 1, 24: 0, 300: 2}})
    with pytest.raises(DataError, match="other classes or another table"):
        origin.encoding(catalog.model_copy(update={"encodings": {"yard-ids": swapped}}).domain("yard/both"))
    with pytest.raises(DataError, match="another protocol"):
        origin.protocol(replace(domain, entry=domain.entry.model_copy(update={"protocol": {"max_size": (10, 20)}})))
    with pytest.raises(DataError, match=r"yard/few/images/index\.json: no such index"):
        origin.images(catalog.domain("yard/few"))
    shutil.copytree(tmp_path / "out/yard/both", tmp_path / "out/yard/few")
    with pytest.raises(DataError, match="it is the index of yard/both/images"):
        origin.images(catalog.domain("yard/few"))


def test_labels_of_other_images_are_refused(prepare: Prepare, catalog: Catalog, yard: Path, tmp_path: Path) -> None:
    prepare(tmp_path / "out")
    (yard / "yard/images/summer/000.jpg").rename(yard / "yard/images/summer/900.jpg")
    (yard / "yard/labels/summer/000_ids.png").rename(yard / "yard/labels/summer/900_ids.png")
    prepare(tmp_path / "other")
    shutil.rmtree(tmp_path / "out/yard/both/labels")
    shutil.copytree(tmp_path / "other/yard/both/labels", tmp_path / "out/yard/both/labels")
    with pytest.raises(DataError, match=r"yard/both/labels: its labels are not those of yard/both/images"):
        Shards(LocalSets(tmp_path / "out")).pairs(catalog.domain("yard/both"))


def test_listing_is_that_of_the_folder(prepare: Prepare, catalog: Catalog, yard: Path, tmp_path: Path) -> None:
    prepare(tmp_path / "out")
    names = ShardIndex.read(tmp_path / "out/yard/both/images" / INDEX).members.names
    found = list_images(catalog.dataset("yard"), yard, "both")
    assert list(names) == [path.relative_to(yard / "yard").as_posix() for path in found]


@pytest.mark.usefixtures("catalog")
def test_the_command_prepares_what_the_run_reads(yard: Path, tmp_path: Path) -> None:
    benchmark = {"title": "y", "source": "yard/few", "validation": "half/both", "targets": {"half": "half/both"}}
    declared = (tmp_path / "yard.yaml").read_text() + yaml.safe_dump({"benchmarks": {"Y": benchmark}})
    (tmp_path / "run.yaml").write_text(declared)
    data = {"world": "null", "root": yard, "catalogs": f"[{tmp_path}/run.yaml]", "benchmarks": "[Y]", "proxy": "yard/both"}
    options = [part for key, value in data.items() for part in ("--set", f"data.{key}={value}")]
    command = ["data", "prepare", "--output", str(tmp_path / "out"), "--profile", "demo", "--jobs", "1", "--shrink", *options]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    preparations = {
        path.parent.relative_to(tmp_path / "out").as_posix(): ShardIndex.read(path).preparation.protocol is not None
        for path in (tmp_path / "out").rglob(INDEX)
    }
    trained = {f"yard/{split}/{content}": False for split in ("both", "few") for content in ("images", "labels")}
    assert preparations == trained | {"half/both/images": True, "half/both/labels": True}
    half = load_catalog([tmp_path / "yard.yaml"]).domain("half/both")
    pair = Shards(LocalSets(tmp_path / "out")).pairs(half)[0]
    assert read_image(pair.image).shape == (8, 12, 3)
    with Image.open(yard / "yard/images/summer/000.jpg") as original:
        np.testing.assert_array_equal(read_image(pair.image), np.array(original.resize((12, 8), Image.Resampling.BICUBIC)))


def test_shards_scaled_as_before_recipe_version_3_are_refused(prepare: Prepare, catalog: Catalog, tmp_path: Path) -> None:
    """Their scores would be told as those of the bicubic step."""
    prepare(tmp_path / "out", "half/both", shrunk=["half/both"])
    half = catalog.domain("half/both")
    assert Shards(LocalSets(tmp_path / "out")).protocol(half) is None
    for file in (tmp_path / "out").rglob(INDEX):
        file.write_text(file.read_text().replace('"bicubic"', '"bilinear"'))
    with pytest.raises(DataError, match=r"half/both: scaled by 0\.5 bilinearly, as before recipe version 3; prepare it again"):
        Shards(LocalSets(tmp_path / "out")).protocol(half)


def test_shards_are_not_prepared_from_shards(tmp_path: Path) -> None:
    options = ["--set", "data.world=null", "--set", "data.shards=there"]
    result = CliRunner().invoke(app, ["data", "prepare", "--output", str(tmp_path), "--profile", "demo", *options])
    assert isinstance(result.exception, SettingsError)
