"""Anybody's images: every depth and mode that is an image gives the pixels it shows, all else is one line."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from gkd_core.data.augment.transforms import to_float
from gkd_core.data.files.reading import read_image
from gkd_core.errors import DataError
from gkd_core.predict.pictures import ORIENTATION, Picture, in_unit, read_picture
from tests.predict.conftest import noise


def sixteen_bit_png(pixels: np.ndarray) -> bytes:
    """A PNG of three channels of 16 bits: Pillow writes none."""
    height, width, _ = pixels.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    parts = [(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in parts
    )


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "CMYK"])
def test_what_training_reads_is_read_as_in_training(tmp_path: Path, mode: str) -> None:
    path = tmp_path / ("i.tif" if mode == "CMYK" else "i.png")
    Image.fromarray(noise(20, 30)).convert("RGB").convert(mode).save(path)
    assert np.array_equal(read_picture(path).pixels, read_image(path))


def test_black_and_white_is_black_and_white(tmp_path: Path) -> None:
    Image.fromarray(noise(20, 30)[..., 0]).convert("1").save(tmp_path / "i.png")
    assert sorted(np.unique(read_picture(tmp_path / "i.png").pixels)) == [0, 255]


def test_sixteen_bits_that_repeat_eight_are_the_eight_bit_for_bit(tmp_path: Path) -> None:
    pixels = np.arange(256, dtype=np.uint8).repeat(3).reshape(16, 16, 3)
    (tmp_path / "color.png").write_bytes(sixteen_bit_png(pixels.astype(np.uint16) * 257))
    Image.fromarray(pixels[..., 0].astype(np.uint16) * 257).save(tmp_path / "grey.png")
    Image.fromarray(pixels[..., 0].astype(np.uint16) * 257).save(tmp_path / "grey.tif")
    for name in ("color.png", "grey.png", "grey.tif"):
        picture = read_picture(tmp_path / name)
        assert picture.pixels.dtype == np.uint16, name
        assert np.array_equal(picture.rows(0, 16).numpy(), to_float(pixels).numpy()), name
        assert np.array_equal(picture.as_bytes(), pixels), name


@given(st.integers(0, 65535))
def test_sixteen_bits_keep_what_eight_would_lose(value: int) -> None:
    shown = in_unit(np.full((1, 1, 3), value, np.uint16))
    assert float(shown[0, 0, 0]) == pytest.approx(value / 65535, abs=1e-7)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_image_is_upright_as_its_exif_says(tmp_path: Path, form: str, orientation: int) -> None:
    """A grey mark in the first corner; where it is seen is what the standard says of each orientation."""
    pixels = np.zeros((24, 40, 3), np.uint8)
    pixels[:8, :8] = 255
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    options = {"lossless": True} if form == "WEBP" else {"quality": 95} if form == "JPEG" else {}
    Image.fromarray(pixels).save(tmp_path / "i", form, exif=exif, **options)
    found = read_picture(tmp_path / "i").pixels
    assert found.shape == ((24, 40, 3) if orientation < 5 else (40, 24, 3))
    corner = {1: (0, 0), 2: (0, -1), 3: (-1, -1), 4: (-1, 0), 5: (0, 0), 6: (0, -1), 7: (-1, -1), 8: (-1, 0)}[orientation]
    assert [place for place in ((0, 0), (0, -1), (-1, -1), (-1, 0)) if found[place].mean() > 128] == [corner]


def bomb() -> bytes:
    parts = [
        (b"IHDR", struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(b"\0" * 99)),
        (b"IEND", b""),
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in parts
    )


def png() -> bytes:
    stream = io.BytesIO()
    Image.fromarray(noise(64, 64)).save(stream, "PNG")
    return stream.getvalue()


DAMAGED = {
    "truncated": (png()[:-300], "the file is truncated or no image"),
    "empty": (b"", "no PNG, JPEG"),
    "text": (b"hello, world\n" * 9, "no PNG, JPEG"),
    "bomb": (bomb(), "cut it into tiles"),
    "header alone": (png()[:40], "no PNG, JPEG"),
}


@pytest.mark.parametrize("kind", DAMAGED)
def test_a_damaged_file_is_one_line_that_names_it(tmp_path: Path, kind: str) -> None:
    content, message = DAMAGED[kind]
    (tmp_path / "i.png").write_bytes(content)
    with pytest.raises(DataError) as refused:
        read_picture(tmp_path / "i.png")
    assert str(refused.value).startswith(f"{tmp_path}/i.png: ")
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_folder_named_like_an_image_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "i.png").mkdir()
    with pytest.raises(DataError, match="i.png: a folder, pipe or device and no file"):
        read_picture(tmp_path / "i.png")


def test_numbers_beyond_16_bits_and_fractions_are_one_line(tmp_path: Path) -> None:
    Image.fromarray(np.full((4, 4), 70_000, np.int32)).save(tmp_path / "wide.tif")
    Image.fromarray(np.zeros((4, 4), np.float32)).save(tmp_path / "float.tif")
    for name, message in (("wide.tif", "values from 70000 to 70000"), ("float.tif", "pixel mode F")):
        with pytest.raises(DataError, match=message):
            read_picture(tmp_path / name)


def test_a_damaged_exif_block_turns_nothing(tmp_path: Path) -> None:
    Image.fromarray(noise(16, 24)).save(tmp_path / "i.jpg", exif=b"Exif\0\0II*\0\xff\xff\xff\x7f")
    assert Picture(read_picture(tmp_path / "i.jpg").pixels).height == 16
