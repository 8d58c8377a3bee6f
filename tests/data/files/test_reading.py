"""From entries to files to arrays: pairing, list files, and every way that a dataset can be wrong."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gkd_core.data.catalog.entries import DatasetEntry
from gkd_core.data.catalog.load import Catalog, load_catalog
from gkd_core.data.catalog.taxonomy import IGNORE, LabelEncoding
from gkd_core.data.files.reading import Pair, list_images, list_pairs, read_image, read_label, read_pair, resolve_encoding
from gkd_core.errors import DataError

CATALOG = """
encodings:
  two: {taxonomy: cityscapes-19, ids: {0: 0, 1: 1, 9: 255}}
datasets:
  depot:
    folder: depot
    images: photos/{split}/*/*_photo.png
    labels: masks/{split}/*/*_mask.png
    encoding: two
    splits:
      both: {folders: [north, south]}
      few: {folders: [north, south], list_in_dataset: few.txt}
"""
TWO = LabelEncoding(taxonomy="cityscapes-19", ids={0: 0, 1: 1, 9: IGNORE})
CAMVID = Path(__file__).parents[3] / ".." / "shared" / "data"


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    path = tmp_path / "own.yaml"
    path.write_text(CATALOG)
    return load_catalog([path])


@pytest.fixture
def entry(catalog: Catalog) -> DatasetEntry:
    return catalog.dataset("depot")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Three images with labels of 4 x 6 pixels, in two folders."""
    for name in ("north/a/one", "north/b/two", "south/a/three"):
        image, label = tmp_path / f"depot/photos/{name}_photo.png", tmp_path / f"depot/masks/{name}_mask.png"
        for path in (image, label):
            path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((4, 6, 3), 7, dtype=np.uint8)).save(image)
        Image.fromarray(np.array([[0, 1, 9, 0, 1, 9]] * 4, dtype=np.uint8)).save(label)
    return tmp_path


def test_images_are_paired_with_their_labels(entry: DatasetEntry, root: Path) -> None:
    pairs = list_pairs(entry, root, "both")
    below = [(pair.image.relative_to(root).as_posix(), pair.label.relative_to(root).as_posix()) for pair in pairs]
    assert below == [
        ("depot/photos/north/a/one_photo.png", "depot/masks/north/a/one_mask.png"),
        ("depot/photos/north/b/two_photo.png", "depot/masks/north/b/two_mask.png"),
        ("depot/photos/south/a/three_photo.png", "depot/masks/south/a/three_mask.png"),
    ]


def test_a_pair_is_read_as_image_and_train_ids(catalog: Catalog, entry: DatasetEntry, root: Path) -> None:
    image, label = read_pair(list_pairs(entry, root, "both")[0], resolve_encoding(catalog, entry, root))
    assert (image.shape, image.dtype.name, label.dtype.name) == ((4, 6, 3), "uint8", "uint8")
    assert label[0].tolist() == [0, 1, IGNORE, 0, 1, IGNORE]


def test_a_list_file_may_name_stems_or_paths(entry: DatasetEntry, root: Path) -> None:
    (root / "depot/few.txt").write_text("a/three\n\none\n")
    assert [path.stem for path in list_images(entry, root, "few")] == ["one_photo", "three_photo"]


@pytest.mark.parametrize(
    ("text", "message"), [("one\nfour\n", r"few\.txt: 'four' is not there \(1 of 2 lines\)"), ("\n", "names no image")]
)
def test_a_list_file_that_does_not_fit_is_refused(entry: DatasetEntry, root: Path, text: str, message: str) -> None:
    (root / "depot/few.txt").write_text(text)
    with pytest.raises(DataError, match=message):
        list_images(entry, root, "few")


def test_a_missing_list_file_is_named(entry: DatasetEntry, root: Path) -> None:
    with pytest.raises(DataError, match=r"few\.txt: cannot be read"):
        list_images(entry, root, "few")


def test_images_are_listed_without_any_labels(entry: DatasetEntry, root: Path) -> None:
    shutil.rmtree(root / "depot/masks")
    assert len(list_images(entry, root, "both")) == 3


def test_a_missing_label_is_named_and_counted(entry: DatasetEntry, root: Path) -> None:
    (root / "depot/masks/north/b/two_mask.png").unlink()
    with pytest.raises(DataError, match=r"north/b/two_mask\.png: no such label file.*1 of 3 images of depot/both"):
        list_pairs(entry, root, "both")


def test_a_missing_folder_is_named_with_the_pattern(entry: DatasetEntry, root: Path) -> None:
    shutil.rmtree(root / "depot/photos/south")
    with pytest.raises(DataError, match=r"photos/south: no such folder.*depot/both.*photos/south/\*/\*_photo\.png"):
        list_images(entry, root, "both")


def test_an_empty_folder_is_named_with_the_pattern(entry: DatasetEntry, root: Path) -> None:
    (root / "depot/photos/south/a/three_photo.png").unlink()
    with pytest.raises(DataError, match=r"photos/south: no image of depot/both.*\*_photo\.png"):
        list_images(entry, root, "both")


def test_an_unlabelled_dataset_has_no_pairs(catalog: Catalog, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="'proxy' is unlabelled"):
        list_pairs(catalog.dataset("proxy"), tmp_path, "all")
    with pytest.raises(DataError, match="'proxy' is unlabelled"):
        resolve_encoding(catalog, catalog.dataset("proxy"), tmp_path)


def test_sizes_must_agree(entry: DatasetEntry, root: Path) -> None:
    pair = list_pairs(entry, root, "both")[0]
    Image.fromarray(np.zeros((4, 5), dtype=np.uint8)).save(pair.label)
    with pytest.raises(DataError, match=r"one_mask\.png: 4 x 5 pixels.*one_photo\.png has 4 x 6"):
        read_pair(pair, TWO)


def test_a_truncated_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "cut.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (32, 32, 3), dtype=np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:700])
    with pytest.raises(DataError, match=r"cut\.png: cannot be decoded"):
        read_image(path)
    path.write_bytes(b"not an image")
    with pytest.raises(DataError, match=r"cut\.png: no PNG, JPEG, .* by its content"):
        read_image(path)
    with pytest.raises(DataError, match=r"gone\.png: no such file"):
        read_image(tmp_path / "gone.png")


def test_labels_in_colours_and_deep_images_are_refused(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((4, 4, 3), dtype=np.uint8)).save(tmp_path / "colour.png")
    with pytest.raises(DataError, match=r"colour\.png: pixel mode RGB, expected one channel"):
        read_label(tmp_path / "colour.png", TWO)
    Image.fromarray(np.zeros((4, 4), dtype=np.uint16)).save(tmp_path / "deep.png")
    with pytest.raises(DataError, match=r"deep\.png: pixel mode I;16, expected an 8-bit"):
        read_image(tmp_path / "deep.png")


def test_palette_labels_are_read_by_index(tmp_path: Path) -> None:
    picture = Image.fromarray(np.array([[0, 1, 9]], dtype=np.uint8))
    picture.putpalette([255, 0, 0] * 256)
    picture.save(tmp_path / "palette.png")
    assert read_label(tmp_path / "palette.png", TWO).tolist() == [[0, 1, IGNORE]]


def test_a_label_id_outside_the_table_names_the_file(tmp_path: Path) -> None:
    Image.fromarray(np.full((2, 2), 5, dtype=np.uint8)).save(tmp_path / "odd.png")
    with pytest.raises(DataError, match=r"odd\.png: label ids 5 .*allowed: 0-1, 9"):
        read_label(tmp_path / "odd.png", TWO)


def test_grey_images_become_three_channels(tmp_path: Path) -> None:
    Image.fromarray(np.full((2, 3), 5, dtype=np.uint8)).save(tmp_path / "grey.png")
    assert read_image(tmp_path / "grey.png").tolist() == np.full((2, 3, 3), 5).tolist()


@pytest.mark.skipif(not (CAMVID / "camvid").is_dir(), reason="the CamVid images are not in ../shared/data")
def test_camvid_reads_as_its_entry_declares() -> None:
    catalog = load_catalog(["camvid"])
    pairs: dict[str, list[Pair]] = {}
    for split in ("day-train", "day-val", "dusk"):
        entry = catalog.domain(f"camvid/{split}").entry
        pairs[split] = list_pairs(entry, CAMVID, split)
        encoding = resolve_encoding(catalog, entry, CAMVID)
        labels = [read_pair(pair, encoding)[1] for pair in pairs[split][::20]]
        assert set(np.unique(labels).tolist()) <= {*range(11), IGNORE}
    sequences = [pair.image.parent.name for split in ("day-train", "day-val", "dusk") for pair in pairs[split]]
    assert {name: sequences.count(name) for name in set(sequences)} == {"0016E5": 305, "0006R0": 101, "0001TP": 124}
    assert {split: len(found) for split, found in pairs.items()} == {"day-train": 325, "day-val": 81, "dusk": 124}
    for sequence in ("0016E5", "0006R0"):
        last = max(pair.image.name for pair in pairs["day-train"] if pair.image.parent.name == sequence)
        assert all(pair.image.name > last for pair in pairs["day-val"] if pair.image.parent.name == sequence)
    assert len(list_images(catalog.dataset("bsds500"), CAMVID, "all")) == 500


def test_printing_colours_are_converted(tmp_path: Path) -> None:
    Image.new("CMYK", (3, 2), (0, 255, 255, 0)).save(tmp_path / "ink.jpg")
    image = read_image(tmp_path / "ink.jpg")
    assert image.shape == (2, 3, 3)
    assert (image[..., 0] > 200).all()
    assert (image[..., 1:] < 60).all()
