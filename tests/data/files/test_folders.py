"""Folders are walked in one way by readers and by the check: names are literal, links are followed, nothing is passed over."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import ValidationError

from gkd_core.data.catalog.entries import DatasetEntry, SplitRule
from gkd_core.data.catalog.load import Catalog, Domain
from gkd_core.data.files.folders import files_below, find
from gkd_core.data.files.reading import list_images, list_pairs
from gkd_core.data.verify.faults import Kind
from gkd_core.data.verify.layout import survey
from gkd_core.errors import DataError
from tests.ordinary_user import ordinary_user

CATALOG = Catalog(taxonomies={}, encodings={}, datasets={}, benchmarks={})


@pytest.fixture
def root() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="gkd-folders-") as name:  # which every user may enter, unlike pytest's own
        os.chmod(name, 0o755)
        yield Path(name).resolve()


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def unlabelled(images: str, *folders: str) -> DatasetEntry:
    return DatasetEntry(name="d", folder=".", images=images, splits={"all": SplitRule(folders=folders)})


def seen(entry: DatasetEntry, root: Path) -> list[str]:
    """The images of the split, which reading and checking find alike."""
    images = list_images(entry, root, "all")
    found = survey(Domain(CATALOG, entry, "all"), root)
    assert [item.image for item in found.items] == images
    assert {fault.kind for fault in found.faults} <= {Kind.LEFT_OUT}
    return [path.relative_to(root).as_posix() for path in images]


@pytest.mark.parametrize("name", ["day[1]", "day[!1]", "da?1", "d[a-z]y1", "[", "day{1}", "day 1", "-day", "day#1", "день"])
@pytest.mark.parametrize("pattern", ["images/{split}/*.png", "images/{split}/*/*.png", "images/{split}/**/*.png"])
def test_a_folder_is_called_what_is_written(root: Path, name: str, pattern: str) -> None:
    """Beside it lies one that a pattern of that name would match."""
    touch(root, f"images/{name}/x/0.png", f"images/{name}/1.png", "images/day1/x/2.png", "images/day1/3.png")
    found = seen(unlabelled(pattern, name), root)
    assert found
    assert all(path.startswith(f"images/{name}/") for path in found)


@pytest.mark.parametrize("name", ["img[0]_*.png", "img?_*.png", "*[1].png", "a*[rgb].png"])
def test_what_stands_around_the_wildcard_is_literal(root: Path, name: str) -> None:
    touch(root, "images/" + name.replace("*", "7"), "images/img0_7.png", "images/img1_7.png", "images/71.png", "images/a7r.png")
    assert [path.name for path in find(root, f"images/{name}")] == [name.replace("*", "7")]


def test_labels_of_a_folder_with_brackets_are_its_own(root: Path) -> None:
    for folder in ("day[1]", "day1"):
        touch(root, f"images/{folder}/{folder}.png", f"labels/{folder}/{folder}.png")
    entry = unlabelled("images/{split}/*.png", "day[1]").model_copy(update={"labels": "labels/{split}/*.png", "encoding": "e"})
    (pair,) = list_pairs(entry, root, "all")
    assert str(pair.label) == str(root / "labels/day[1]/day[1].png")


@pytest.mark.parametrize("folder", ["*", "day*", "a/**", "**/x"])
def test_a_wildcard_in_a_folder_of_a_split_is_refused(folder: str) -> None:
    with pytest.raises(ValidationError, match="a folder of a split is named, not matched"):
        SplitRule(folders=(folder,))


@pytest.mark.parametrize(
    "pattern", ["images/*.png", "images/*/*.png", "images/**/*.png", "images/*/**/*.png", "images/**/*/*.png"]
)
def test_linked_folders_are_entered_whatever_the_wildcard(root: Path, pattern: str) -> None:
    touch(root, "store/x/deep/0.png", "store/x/1.png", "store/2.png", "images/own/3.png")
    (root / "images/linked").symlink_to(root / "store")
    (root / "images/x").symlink_to(root / "store/x")
    (root / "images/5.png").symlink_to(root / "store/2.png")
    wanted = {
        "images/*.png": ["images/5.png"],
        "images/*/*.png": ["images/linked/2.png", "images/own/3.png", "images/x/1.png"],
    }
    deep = ["images/linked/2.png", "images/linked/x/1.png", "images/linked/x/deep/0.png", "images/own/3.png"]
    deep += ["images/x/1.png", "images/x/deep/0.png"]
    rest = deep if "*/**" in pattern or "**/*/" in pattern else ["images/5.png", *deep]
    assert [path.relative_to(root).as_posix() for path in find(root, pattern)] == wanted.get(pattern, sorted(rest))


def test_the_linked_folder_of_a_split_is_read_as_one_of_its_own(root: Path) -> None:
    touch(root, "store/0.png")
    (root / "images").mkdir()
    (root / "images/day").symlink_to(root / "store")
    assert seen(unlabelled("images/{split}/*.png", "day"), root) == ["images/day/0.png"]


@pytest.mark.parametrize("pattern", ["images/*/*.png", "images/**/*.png"])
def test_links_in_a_circle_are_an_error_with_their_place(root: Path, pattern: str) -> None:
    touch(root, "images/a/0.png")
    (root / "images/loop").symlink_to(root / "images")
    with pytest.raises(DataError, match=r"images/loop: cannot be entered \(leads back to .*images.*\); remove the link"):
        list_images(unlabelled(pattern), root, "all")


@pytest.mark.parametrize("pattern", ["images/*/*.png", "images/**/*.png"])
def test_a_link_to_nothing_in_the_place_of_a_folder_is_an_error(root: Path, pattern: str) -> None:
    touch(root, "images/a/0.png")
    (root / "images/disk").symlink_to("/no/such/disk")
    with pytest.raises(DataError, match=r"images/disk: cannot be entered \(points to /no/such/disk\); fetch"):
        list_images(unlabelled(pattern), root, "all")


@pytest.mark.parametrize("pattern", ["images/*/*.png", "images/**/*.png", "images/b/*.png"])
def test_a_folder_that_may_not_be_read_is_an_error(root: Path, pattern: str) -> None:
    touch(root, "images/a/0.png", "images/b/1.png")
    (root / "images/b").chmod(0)
    try:
        with ordinary_user(), pytest.raises(DataError, match=r"images/b: cannot be entered \(folder: Permission denied\); give"):
            list_images(unlabelled(pattern), root, "all")
    finally:
        (root / "images/b").chmod(0o755)


def test_a_name_that_the_wildcard_has_no_part_in_is_left_out_and_told(root: Path) -> None:
    touch(root, "images/_photo.png", "images/0_photo.png", "images/._photo.png")
    entry = unlabelled("images/*_photo.png")
    assert [path.name for path in list_images(entry, root, "all")] == ["._photo.png", "0_photo.png"]
    left = [fault.path.name for fault in survey(Domain(CATALOG, entry, "all"), root).faults]
    assert left == ["_photo.png"]


def test_files_below_a_folder_include_those_behind_links(root: Path) -> None:
    touch(root, "a/0.png", "store/b/1.png")
    (root / "a/linked").symlink_to(root / "store")
    assert sorted(path.relative_to(root).as_posix() for path in files_below(root / "a")) == ["a/0.png", "a/linked/b/1.png"]
