"""Files damaged at random: the check of one file never raises, and agrees with what training can read."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from gkd_core.data.catalog.taxonomy import IGNORE, LabelEncoding
from gkd_core.data.files.reading import Pair, read_pair
from gkd_core.data.verify import items
from gkd_core.data.verify.faults import Kind
from gkd_core.data.verify.items import Item, check_item
from gkd_core.errors import DataError

ENCODING = LabelEncoding(taxonomy="trio", ids={0: 0, 1: 1, 2: 2, 9: IGNORE})
NUMBERS = np.random.default_rng(3)
IMAGE = Image.fromarray(NUMBERS.integers(0, 256, (16, 20, 3), dtype=np.uint8))
LABEL = Image.fromarray(NUMBERS.choice(np.array([0, 1, 2, 9], dtype=np.uint8), (16, 20)))

Edit = tuple[str, int, bytes]
EDITS = st.lists(
    st.tuples(st.sampled_from(["write", "insert", "cut", "end"]), st.integers(0, 2000), st.binary(min_size=1, max_size=9))
)


def encoded(picture: Image.Image, file_format: str) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, file_format)
    return stream.getvalue()


def edited(content: bytes, edits: list[Edit]) -> bytes:
    for what, place, value in edits:
        at = place % (len(content) + 1)
        if what == "end":
            content = content[:at]
        else:
            content = content[:at] + (b"" if what == "cut" else value) + content[at + (0 if what == "insert" else len(value)) :]
    return content


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(image_format=st.sampled_from(["PNG", "JPEG", "BMP"]), image_edits=EDITS, label_edits=EDITS)
def test_random_damage_never_crashes_and_a_pair_without_error_can_be_read(
    tmp_path: Path, image_format: str, image_edits: list[Edit], label_edits: list[Edit]
) -> None:
    image, label = tmp_path / "image", tmp_path / "label.png"
    image.write_bytes(edited(encoded(IMAGE, image_format), image_edits))
    label.write_bytes(edited(encoded(LABEL, "PNG"), label_edits))
    facts = check_item(Item("depot/train", image, label, ENCODING))
    kinds = {fault.kind for fault in facts.faults}
    assert Kind.CHECK_FAILED not in kinds
    if not any(kind.severity == "error" for kind in kinds):
        read_pair(Pair(image, label), ENCODING)
    elif kinds & {Kind.NOT_AN_IMAGE, Kind.EMPTY_FILE, Kind.SIZE, Kind.UNKNOWN_IDS, Kind.TOO_LARGE}:
        with pytest.raises(DataError):
            read_pair(Pair(image, label), ENCODING)


@pytest.fixture
def pair(tmp_path: Path) -> Item:
    IMAGE.save(tmp_path / "image.png")
    LABEL.save(tmp_path / "label.png")
    return Item("depot/train", tmp_path / "image.png", tmp_path / "label.png", ENCODING)


def test_facts_are_the_size_and_the_pixels_of_each_class(pair: Item) -> None:
    facts = check_item(pair)
    values = np.asarray(LABEL).tolist()
    flat = [value for row in values for value in row]
    assert (facts.faults, facts.size) == ([], (16, 20))
    assert facts.pixels == {train_id: flat.count(value) for value, train_id in ENCODING.ids.items()}


def test_deep_labels_are_counted_alike(pair: Item) -> None:
    assert pair.label is not None
    shallow = check_item(pair).pixels
    Image.fromarray(np.asarray(LABEL).astype(np.uint16)).save(pair.label)
    assert check_item(pair).pixels == shallow


def test_values_outside_the_table_are_named_with_their_pixels(pair: Item) -> None:
    assert pair.label is not None
    ids = np.asarray(LABEL).copy()
    ids[0, :5], ids[1, :3] = 77, 200
    Image.fromarray(ids).save(pair.label)
    assert [fault.detail for fault in check_item(pair).faults] == ["77 (5 pixels), 200 (3 pixels)"]


def test_colours_outside_the_table_are_named_as_colours(pair: Item) -> None:
    assert pair.label is not None
    colors = np.zeros((16, 20, 3), dtype=np.uint8)
    colors[:2], colors[2] = (255, 0, 170), (0, 0, 255)
    Image.fromarray(colors).save(pair.label)
    encoding = LabelEncoding(taxonomy="trio", ids={0x000000: IGNORE, 0x0000FF: 1}, form="color")
    facts = check_item(Item("depot/train", pair.image, pair.label, encoding))
    assert [fault.detail for fault in facts.faults] == ["#ff00aa (40 pixels)"]
    assert facts.pixels == {1: 20, IGNORE: 260}


def test_a_label_drawn_on_the_turned_view_is_told_as_such(pair: Item) -> None:
    assert pair.label is not None
    tags = Image.Exif()
    tags[0x0112] = 6
    IMAGE.save(pair.image, exif=tags)
    LABEL.transpose(Image.Transpose.ROTATE_90).save(pair.label)
    kinds = {fault.kind: fault.detail for fault in check_item(pair).faults}
    assert kinds[Kind.SIZE] == ("20 x 16 pixels (height x width), but its image has 16 x 20; the label is of the turned view")
    assert Kind.EXIF_ROTATION in kinds


def test_palette_labels_and_grey_or_palette_images_are_well(pair: Item) -> None:
    assert pair.label is not None
    IMAGE.convert("L").save(pair.image)
    coloured = LABEL.copy()
    coloured.putpalette([10, 200, 30] * 256)
    coloured.save(pair.label)
    assert check_item(pair).faults == []
    IMAGE.quantize(64).save(pair.image)
    assert check_item(pair).faults == []


def test_bands_are_those_that_the_entry_names(pair: Item) -> None:
    four = Image.fromarray(NUMBERS.integers(0, 256, (16, 20, 4), dtype=np.uint8))
    four.save(pair.image, format="TIFF")
    facts = check_item(Item("depot/train", pair.image, bands=(3, 0, 1)))
    rgb = check_item(Item("depot/train", pair.image))
    assert (facts.faults, facts.size) == ([], (16, 20))
    assert facts.image_digest != rgb.image_digest
    wrong = check_item(Item("depot/train", pair.image, bands=(4, 0, 1)))
    assert [fault.kind for fault in wrong.faults] == [Kind.IMAGE_MODE]


def test_labels_of_an_encoding_that_is_not_known_are_still_decoded(pair: Item) -> None:
    assert pair.label is not None
    pair.label.write_bytes(pair.label.read_bytes()[:90])
    assert [fault.kind for fault in check_item(Item("depot/train", pair.image, pair.label)).faults] == [Kind.DAMAGED]


def test_a_fault_of_the_check_is_a_finding_and_hides_nothing_else(pair: Item, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(path: Path, bands: object) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(items, "read_bands", fail)
    assert pair.label is not None
    pair.label.write_bytes(b"")
    found = [(fault.kind, fault.path, fault.detail) for fault in check_item(pair).faults]
    assert found == [
        (Kind.CHECK_FAILED, pair.image, "ZeroDivisionError: a bug"), (Kind.EMPTY_FILE, pair.label, "0 bytes")
    ]  # fmt: skip
