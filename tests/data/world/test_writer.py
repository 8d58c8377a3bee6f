"""The embedded world: reproducible, in the real layouts, and readable by the ordinary readers."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gkd_core.data.catalog.load import load_catalog
from gkd_core.data.catalog.taxonomy import IGNORE
from gkd_core.data.files.reading import list_images, list_pairs, read_image, read_pair, resolve_encoding
from gkd_core.data.world import write_world
from gkd_core.data.world.layouts import LAYOUTS
from gkd_core.errors import DataError
from gkd_core.settings import WorldSettings

SMALL = WorldSettings(
    seed=3, street_size=(32, 64), aerial_size=(32, 32), proxy_images=6, train_images=5, val_images=4, target_images=4
)


def digests(root: Path) -> dict[str, str]:
    """Digest of every file by its path below `root`."""
    return {
        path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data") / "world"
    write_world(SMALL, root)
    return root


def test_the_same_settings_give_the_same_bytes(world: Path, tmp_path: Path) -> None:
    write_world(SMALL, tmp_path / "again")
    assert digests(tmp_path / "again") == digests(world)


def test_a_scene_does_not_depend_on_how_many_there_are(world: Path, tmp_path: Path) -> None:
    write_world(SMALL.model_copy(update={"train_images": 2, "proxy_images": 1}), tmp_path / "fewer")
    whole, fewer = digests(world), digests(tmp_path / "fewer")
    assert all(whole[path] == digest for path, digest in fewer.items() if path.endswith((".png", ".jpg")))


def test_another_seed_gives_other_pictures(world: Path, tmp_path: Path) -> None:
    write_world(SMALL.model_copy(update={"seed": 4}), tmp_path / "other")
    ours, theirs = digests(world), digests(tmp_path / "other")
    assert all(ours[path] != theirs[path] for path in ours if path.endswith(".png") and "images" in path)


def test_progress_counts_every_image(tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    write_world(SMALL, tmp_path / "world", lambda done, total: calls.append((done, total)))
    assert calls == [(index, len(calls)) for index in range(1, len(calls) + 1)]
    assert len(calls) == 6 + 3 * (5 + 4) + 8 * 4


@pytest.mark.parametrize(
    "path",
    [
        "gta5/images/00001.png",
        "gta5/labels/00001.png",
        "cityscapes/leftImg8bit/train/aachen/aachen_000000_000019_leftImg8bit.png",
        "cityscapes/gtFine/val/frankfurt/frankfurt_000000_000019_gtFine_labelIds.png",
        "mapillary/config.json",
        "acdc/rgb_anon/night/val/GOPR0356/GOPR0356_frame_000001_rgb_anon.png",
        "acdc/gt/fog/val/GOPR0356/GOPR0356_frame_000001_gt_labelTrainIds.png",
        "potsdam/RGB/img_dir/train/2_10_0_0_512_512.png",
        "potsdam/IRRG/ann_dir/val/2_10_0_0_512_512.png",
        "vaihingen/img_dir/val/area38_0_0_512_512.png",
    ],
)
def test_files_are_named_as_in_the_real_archives(world: Path, path: str) -> None:
    assert (world / path).is_file()


def domains() -> list[str]:
    return sorted(layout.domain for layout in LAYOUTS)


@pytest.mark.parametrize("reference", domains())
def test_every_domain_reads_back(world: Path, reference: str) -> None:
    catalog = load_catalog()
    domain = catalog.domain(reference)
    entry, split = domain.entry, domain.split
    pairs = list_pairs(entry, world, split)
    encoding = resolve_encoding(catalog, entry, world)
    assert len(pairs) == (5 if split == "train" else 4)
    seen: set[int] = set()
    for pair in pairs:
        image, label = read_pair(pair, encoding)
        seen |= set(np.unique(label).tolist())
        shown = entry.protocol.input_size(*label.shape)
        assert shown == (SMALL.aerial_size if "potsdam" in reference or "vaihingen" in reference else SMALL.street_size)
        assert image.std() > 5
    classes = len(catalog.taxonomy_of(entry).classes)
    assert seen <= {*range(classes), IGNORE}
    assert len(seen - {IGNORE}) >= 5


def test_gta5_labels_are_palette_pictures_of_cityscapes_ids(world: Path) -> None:
    picture = Image.open(world / "gta5/labels/00001.png")
    assert picture.mode == "P"
    ids = np.asarray(picture)
    assert {7, 11, 23} <= set(np.unique(ids).tolist())
    road = np.asarray(picture.convert("RGB"))[ids == 7]
    assert (road == (128, 64, 128)).all()


def test_irrg_is_a_change_of_bands_of_the_same_tiles(world: Path) -> None:
    catalog = load_catalog()
    rgb, irrg = catalog.dataset("potsdam-rgb"), catalog.dataset("potsdam-irrg")
    for one, other in zip(list_pairs(rgb, world, "val"), list_pairs(irrg, world, "val"), strict=True):
        visible, infrared = read_image(one.image), read_image(other.image)
        assert (infrared[..., 1:] == visible[..., :2]).all()
        assert (infrared[..., 0] != visible[..., 0]).mean() > 0.5
        assert one.label.read_bytes() == other.label.read_bytes()


def test_proxy_images_are_streets_and_tiles_two_to_one_without_labels(world: Path) -> None:
    sizes = [read_image(path).shape[:2] for path in list_images(load_catalog().dataset("proxy"), world, "all")]
    assert sizes == [SMALL.street_size, SMALL.street_size, SMALL.aerial_size] * 2
    assert {path.parent.name for path in (world / "proxy").rglob("*.png")} == {"images"}


def test_sources_are_listed_where_all_labels_are_gone(world: Path, tmp_path: Path) -> None:
    shutil.copytree(world / "gta5", tmp_path / "gta5")
    shutil.rmtree(tmp_path / "gta5/labels")
    assert len(list_images(load_catalog().dataset("gta5"), tmp_path, "train")) == 5


def test_a_world_replaces_a_world_and_nothing_else(tmp_path: Path) -> None:
    root = tmp_path / "world"
    write_world(SMALL, root)
    (root / "stray.txt").write_text("left over")
    write_world(SMALL, root)
    assert not (root / "stray.txt").exists()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/photo.jpg").write_bytes(b"")
    with pytest.raises(DataError, match="mine: holds files that are not a rendered world"):
        write_world(SMALL, tmp_path / "mine")
    assert (tmp_path / "mine/photo.jpg").exists()
