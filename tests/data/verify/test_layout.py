"""The survey of a split: it takes what training takes, and every shipped dataset of the embedded world is whole."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gkd_core.data.catalog.load import Catalog, load_catalog
from gkd_core.data.files.reading import list_images, list_pairs
from gkd_core.data.verify.faults import Kind, Report
from gkd_core.data.verify.layout import survey
from gkd_core.data.verify.run import verify
from gkd_core.data.world.layouts import LAYOUTS
from gkd_core.data.world.writer import MARKER, write_world
from gkd_core.errors import DataError
from gkd_core.settings import WorldSettings

NAMES = st.sets(
    st.builds(
        lambda stem, ending: stem + ending,
        st.sampled_from(["a", "A", "b", "b_1", "é", "e\u0301", ".c", "d e"]),
        st.sampled_from(["_photo.png", "_mask.png", "_photo.PNG", "_photo.jpg", "_mask.PNG", ".png", "_photo"]),
    ),
    max_size=8,
)


@settings(max_examples=60)
@given(images=NAMES, labels=NAMES)
def test_a_split_without_error_is_what_training_lists(catalog: Catalog, images: set[str], labels: set[str]) -> None:
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        for folder, names in (("photos", images), ("masks", labels)):
            (root / f"depot/{folder}/east/a").mkdir(parents=True)
            for file in names:
                (root / f"depot/{folder}/east/a/{file}").touch()
        found = survey(catalog.domain("depot/val"), root)
        kinds = {fault.kind for fault in found.faults}
        entry, split = catalog.dataset("depot"), "val"
        if not any(kind.severity == "error" for kind in kinds):
            pairs = list_pairs(entry, root, split)
            assert [(item.image, item.label) for item in found.items] == [(pair.image, pair.label) for pair in pairs]
        if kinds & {Kind.MISSING_LABEL, Kind.MISNAMED_LABEL, Kind.EMPTY_FOLDER}:
            with pytest.raises(DataError):
                list_pairs(entry, root, split)
        # No image file is left out without a word.
        left_out = {fault.path.name for fault in found.faults if fault.kind is Kind.LEFT_OUT}
        for file in images:
            if Path(file).suffix.lower() in (".png", ".jpg") and "_photo" in file:
                assert (file in left_out) != (file in {item.image.name for item in found.items})


def test_prefixes_and_suffixes_in_any_case_follow_the_entry(tmp_path: Path) -> None:
    own = tmp_path / "own.yaml"
    own.write_text("""
datasets:
  gate:
    folder: gate
    images: rgb/rgb_*.jpg
    labels: ss/ss_*.png
    encoding: cityscapes-train-ids
    any_suffix_case: true
    splits: {all: {}}
""")
    for name in ("rgb/rgb_1.JPG", "rgb/rgb_2.jpg", "rgb/3.jpg", "ss/ss_1.png", "ss/2.png", "rgb/rgb_4.jpeg", "ss/ss_4.PNG"):
        (tmp_path / "gate" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "gate" / name).touch()
    found = survey(load_catalog([own]).domain("gate/all"), tmp_path)
    places = [(fault.kind, fault.path.relative_to(tmp_path / "gate").as_posix()) for fault in found.faults]
    assert [item.image.name for item in found.items] == ["rgb_1.JPG", "rgb_2.jpg"]
    assert sorted(places, key=str) == [
        (Kind.LEFT_OUT, "rgb/rgb_4.jpeg"), (Kind.MISSING_LABEL, "ss/ss_2.png"), (Kind.STRAY_LABEL, "ss/ss_4.PNG")
    ]  # fmt: skip


def test_folders_that_splits_share_are_told_of_once(check: Callable[..., Report], root: Path) -> None:
    (root / "listed/images/x/0.JPEG").touch()
    (root / "listed/labels/x/9.png").touch()
    found = [(fault.domain, fault.kind) for fault in check(root, "listed/some", "listed/rest").faults]
    assert found == [("listed/some", Kind.LEFT_OUT), ("listed/some", Kind.STRAY_LABEL)]


def test_labels_of_images_that_the_list_leaves_out_are_no_strays(catalog: Catalog, root: Path) -> None:
    (root / "listed/some.txt").write_text("0\n")
    found = survey(catalog.domain("listed/some"), root)
    assert ([item.image.name for item in found.items], found.faults) == (["0.png"], [])


def test_the_image_folder_may_be_missing_as_a_whole(catalog: Catalog, tmp_path: Path) -> None:
    kinds = [fault.kind for fault in survey(catalog.domain("depot/train"), tmp_path).faults]
    assert kinds == [Kind.MISSING_FOLDER, Kind.MISSING_FOLDER]  # north and south
    with pytest.raises(DataError):
        list_images(catalog.dataset("depot"), tmp_path, "train")


def test_every_dataset_of_the_embedded_world_is_whole(tmp_path: Path, no_progress: Callable[..., object]) -> None:
    world = WorldSettings(
        street_size=(32, 64), aerial_size=(32, 32), proxy_images=3, train_images=2, val_images=1, target_images=1
    )
    write_world(world, tmp_path / "world")
    references = ["proxy/all", *(layout.domain for layout in LAYOUTS)]
    report = verify([load_catalog().domain(name) for name in references], tmp_path / "world", 1, no_progress)
    assert {fault.kind for fault in report.faults} <= {Kind.UNSEEN_CLASS}
    assert report.counts["gta5/train"] == (2, 2)
    # Without its marker it is a dataset like any other, of which most is missing.
    (tmp_path / "world" / MARKER).unlink()
    report = verify([load_catalog().domain("gta5/train")], tmp_path / "world", 1, no_progress)
    assert Kind.COUNT in {fault.kind for fault in report.faults}
