"""Label files in each of their forms, read as ids and as train ids."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from PIL import Image

from gkd_core.data.catalog.load import load_catalog
from gkd_core.data.catalog.taxonomy import (
    IGNORE,
    ColorEncoding,
    LabelEncoding,
    Taxonomy,
    resolve_colors,
    to_train_ids,
    unknown_values,
)
from gkd_core.data.files.pictures import open_deep
from gkd_core.data.files.reading import read_ids, read_label, resolve_encoding
from gkd_core.errors import DataError

ISPRS = Taxonomy(name="isprs", classes=("ground", "house"), colors=((255, 255, 255), (0, 0, 255)))
COLORS = resolve_colors(ColorEncoding(taxonomy="isprs", colors={"#ffffff": "ground", "#0000ff": "house", "#000000": None}), ISPRS)
FIRST = LabelEncoding(taxonomy="t", ids={0: IGNORE, 3: 0, 21: 3, 300: 1}, form="first-channel")
PICTURE = np.array([[[255, 255, 255], [0, 0, 255], [0, 0, 0]]], dtype=np.uint8)


def deep_png(pixels: np.ndarray) -> bytes:
    """A PNG of (height, width, 3) values of 16 bits, written chunk by chunk as the standard says: the first row as it is, the
    others as differences to the pixel on the left (filter 1), as encoders write them."""
    height, width, _ = pixels.shape
    lines = np.ascontiguousarray(pixels.astype(">u2")).view(np.uint8).reshape(height, width, 6)
    left = np.concatenate([np.zeros_like(lines[:, :1]), lines[:, :-1]], axis=1)
    rows = b"\0" + lines[0].tobytes() + b"".join(b"\1" + row.tobytes() for row in (lines - left)[1:])

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P"])
@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_colours_carry_the_meaning_in_every_mode(tmp_path: Path, mode: str, suffix: str) -> None:
    """Of a palette the colours count, not the indices: those are whatever the writer of the file chose."""
    if mode == "P":
        picture = Image.fromarray(np.array([[7, 5, 9]], dtype=np.uint8))
        palette = np.full((256, 3), 99, dtype=np.uint8)
        palette[[7, 5, 9]] = PICTURE[0]
        picture.putpalette(palette.ravel().tolist())
    else:
        picture = Image.fromarray(PICTURE).convert(mode)
    picture.save(tmp_path / f"label{suffix}")
    assert read_ids(tmp_path / f"label{suffix}", COLORS).tolist() == [[0xFFFFFF, 0x0000FF, 0]]
    assert read_label(tmp_path / f"label{suffix}", COLORS).tolist() == [[0, 1, IGNORE]]


def test_an_unknown_colour_is_reported_as_a_colour(tmp_path: Path) -> None:
    pixels = PICTURE.copy()
    pixels[0, 1] = (255, 0, 170)
    Image.fromarray(pixels).save(tmp_path / "odd.png")
    with pytest.raises(
        DataError, match=r"odd\.png: label colours #ff00aa are not in the encoding; allowed: #000000, #0000ff, #ff"
    ):
        read_label(tmp_path / "odd.png", COLORS)
    assert unknown_values(read_ids(tmp_path / "odd.png", COLORS), COLORS) == {"#ff00aa": 1}


def test_ids_of_16_bits_are_read_from_the_first_of_three_channels(tmp_path: Path) -> None:
    """SYNTHIA's form. Pillow alone would see the upper 8 bits: zeros, and 1 for 300."""
    pixels = np.zeros((2, 2, 3), dtype=np.uint16)
    pixels[..., 0], pixels[..., 1] = [[3, 21], [0, 300]], 5000
    (tmp_path / "deep.png").write_bytes(deep_png(pixels))
    assert read_ids(tmp_path / "deep.png", FIRST).tolist() == [[3, 21], [0, 300]]
    assert read_label(tmp_path / "deep.png", FIRST).tolist() == [[0, 3], [IGNORE, 1]]


def test_every_bit_of_a_deep_picture_is_read(tmp_path: Path) -> None:
    pixels = np.random.default_rng(1).integers(0, 2**16, (9, 7, 3), dtype=np.uint16)
    (tmp_path / "deep.png").write_bytes(deep_png(pixels))
    read = open_deep(tmp_path / "deep.png")
    assert isinstance(read, np.ndarray) and read.dtype == np.uint16
    assert (read == pixels).all()


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "I;16"])
def test_the_first_channel_may_be_the_only_one(tmp_path: Path, mode: str) -> None:
    ids = np.array([[3, 21, 0]], dtype=np.uint8)
    if mode == "I;16":
        picture = Image.fromarray(ids.astype(np.uint16))
    else:
        picture = Image.fromarray(ids if mode == "L" else np.dstack([ids, ids + 1, ids + 2]))
        picture = picture.convert(mode)
    picture.save(tmp_path / "label.png")
    assert read_label(tmp_path / "label.png", FIRST).tolist() == [[0, 3, IGNORE]]


def test_a_truncated_deep_label_is_named(tmp_path: Path) -> None:
    content = deep_png(np.random.default_rng(0).integers(0, 2**16, (32, 32, 3), dtype=np.uint16))
    (tmp_path / "cut.png").write_bytes(content[:900])
    with pytest.raises(DataError, match=r"cut\.png: cannot be decoded"):
        read_ids(tmp_path / "cut.png", FIRST)


def test_a_form_that_a_file_does_not_have_says_what_to_declare(tmp_path: Path) -> None:
    index = LabelEncoding(taxonomy="t", ids={0: 0})
    Image.fromarray(PICTURE).save(tmp_path / "colour.png")
    with pytest.raises(DataError, match=r"colour\.png: pixel mode RGB, expected one channel .*first-channel.*colors"):
        read_ids(tmp_path / "colour.png", index)
    Image.fromarray(PICTURE[..., 0]).save(tmp_path / "grey.png")
    with pytest.raises(DataError, match=r"grey\.png: pixel mode L, expected a label in colours"):
        read_ids(tmp_path / "grey.png", COLORS)
    Image.fromarray(PICTURE).convert("CMYK").save(tmp_path / "ink.tif")
    with pytest.raises(DataError, match=r"ink\.tif: pixel mode CMYK, expected channels of whole numbers"):
        read_ids(tmp_path / "ink.tif", FIRST)


def test_gta5_is_read_by_index_and_its_copy_in_colours_alike(tmp_path: Path) -> None:
    """The archive's palette PNG, and the same picture saved as RGB."""
    catalog = load_catalog()
    ids = np.array([[7, 26, 23, 0, 33]], dtype=np.uint8)
    palette = np.zeros((256, 3), dtype=np.uint8)
    palette[[7, 26, 23, 0, 33]] = [[128, 64, 128], [0, 0, 142], [70, 130, 180], [0, 0, 0], [119, 11, 32]]
    picture = Image.fromarray(ids)
    picture.putpalette(palette.ravel().tolist())
    picture.save(tmp_path / "palette.png")
    picture.convert("RGB").save(tmp_path / "rgb.png")
    read = [
        read_label(tmp_path / file, resolve_encoding(catalog, catalog.dataset(name), tmp_path))
        for file, name in (("palette.png", "gta5"), ("rgb.png", "gta5-colors"))
    ]
    assert read[0].tolist() == read[1].tolist() == [[0, 13, 10, IGNORE, 18]]


@given(
    colors=st.dictionaries(st.integers(0, 0xFFFFFF), st.sampled_from(["ground", "house", None]), min_size=1, max_size=8),
    label=npst.arrays(np.int32, npst.array_shapes(min_dims=2, max_dims=2, max_side=5), elements=st.integers(0, 0xFFFFFF)),
    data=st.data(),
)
def test_any_table_of_colours_is_a_dictionary_look_up(
    colors: dict[int, str | None], label: np.ndarray, data: st.DataObject
) -> None:
    encoding = resolve_colors(
        ColorEncoding(taxonomy="isprs", colors={f"#{value:06x}": name for value, name in colors.items()}), ISPRS
    )
    known = np.array(data.draw(st.lists(st.sampled_from(sorted(colors)), min_size=label.size, max_size=label.size)))
    keep = data.draw(npst.arrays(bool, label.shape))
    label = np.where(keep, label, known.reshape(label.shape))
    expected: dict[str, int] = {}
    for value in label.ravel().tolist():
        if value not in colors:
            expected[f"#{value:06x}"] = expected.get(f"#{value:06x}", 0) + 1
    assert unknown_values(label, encoding) == expected
    assert list(unknown_values(label, encoding)) == sorted(expected)
    if not expected:
        targets = {"ground": 0, "house": 1, None: IGNORE}
        assert to_train_ids(label, encoding, Path("x")).tolist() == [
            [targets[colors[value]] for value in row] for row in label.tolist()
        ]
