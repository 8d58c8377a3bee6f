"""A folder is taken for a dataset by the names of its files."""

from __future__ import annotations

from pathlib import Path

import pytest

from gkd_core.data.catalog.load import Catalog, load_catalog
from gkd_core.errors import DataError
from gkd_core.versioning.dataset_layout import SplitFound, check_layout, check_links, entries_of, recognised


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    return load_catalog()


def touch(place: Path, *names: str) -> None:
    for name in names:
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).touch()


def test_the_splits_that_are_there_are_counted(catalog: Catalog, tmp_path: Path) -> None:
    for name in ("u_1", "u_2"):
        touch(tmp_path, f"leftImg8bit/val/u/{name}_leftImg8bit.png", f"gtFine/val/u/{name}_gtFine_labelIds.png")
    assert check_layout(catalog.dataset("cityscapes"), tmp_path) == [SplitFound("cityscapes/val", 2, 2)]


def test_a_folder_is_recognised_by_any_dataset_that_reads_it(catalog: Catalog, tmp_path: Path) -> None:
    """`acdc` has a dataset for each condition, and `cityscapes` one for each form of its labels."""
    for condition in ("night", "fog"):
        touch(tmp_path, f"acdc/rgb_anon/{condition}/val/G/a_rgb_anon.png", f"acdc/gt/{condition}/val/G/a_gt_labelTrainIds.png")
    touch(tmp_path, "city/leftImg8bit/val/u/u_1_leftImg8bit.png", "city/gtFine/val/u/u_1_gtFine_labelIds.png")
    assert len(entries_of(catalog, "acdc")) >= 4 and len(entries_of(catalog, "cityscapes")) >= 2
    found = {split.domain for split in recognised(catalog, "acdc", tmp_path / "acdc")}
    assert {"acdc-night/val", "acdc-fog/val"} <= found and not any("rain" in domain for domain in found)
    assert recognised(catalog, "cityscapes", tmp_path / "city") == [SplitFound("cityscapes/val", 1, 1)]
    assert recognised(catalog, "unheard-of", tmp_path) == []
    with pytest.raises(DataError, match="laid out unlike dataset 'cityscapes'"):
        recognised(catalog, "cityscapes", tmp_path / "acdc")


def test_another_layout_is_refused_with_what_was_looked_for(catalog: Catalog, tmp_path: Path) -> None:
    touch(tmp_path, "images/a.png")
    with pytest.raises(DataError, match=r"laid out unlike dataset 'cityscapes': .* or leftImg8bit/val/\*/\*_leftImg8bit\.png"):
        check_layout(catalog.dataset("cityscapes"), tmp_path)
    with pytest.raises(DataError, match="no such folder"):
        check_layout(catalog.dataset("cityscapes"), tmp_path / "absent")


def test_a_split_in_part_is_refused(catalog: Catalog, tmp_path: Path) -> None:
    touch(tmp_path, "leftImg8bit/val/u/u_1_leftImg8bit.png")
    with pytest.raises(DataError, match=r"cityscapes/val.*no label"):
        check_layout(catalog.dataset("cityscapes"), tmp_path)


@pytest.mark.parametrize("target", ["a.png", "/etc/passwd", "nowhere", "."])
def test_links_are_refused(tmp_path: Path, target: str) -> None:
    touch(tmp_path, "images/a.png")
    check_links(tmp_path)
    (tmp_path / "images" / "b.png").symlink_to(target)
    with pytest.raises(DataError, match=r"b\.png: a symbolic link"):
        check_links(tmp_path)
