"""Pictures from outside: no decoder that starts a program, no bomb, no format but ours, whatever the file is called."""

from __future__ import annotations

import io
import os
import struct
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from gkd_core.data.files.pictures import FORMATS, open_deep, open_picture, opened, size_of
from gkd_core.errors import DataError

READERS: list[Callable[[Path], object]] = [open_picture, open_deep, size_of]
FOREIGN = ("DDS", "EPS", "ICNS", "ICO", "IM", "JPEG2000", "MSP", "PCX", "PDF", "SGI", "SPIDER", "TGA", "XBM")
REFUSALS = (
    OSError, ValueError, SyntaxError, Image.DecompressionBombError, OverflowError, TypeError, IndexError, EOFError, struct.error,
)  # fmt: skip
EPS = b"""%!PS-Adobe-3.0 EPSF-3.0
%%BoundingBox: 0 0 8 8
%%Pages: 1
%%EndComments
%%Page: 1 1
(attacked) (w) file closefile
showpage
%%EOF
"""


def encoded(form: str, size: tuple[int, int] = (8, 8), mode: str = "RGB") -> bytes:
    stream = io.BytesIO()
    Image.new(mode, size, 0).save(stream, form)
    return stream.getvalue()


def png(width: int, height: int, rows: bytes, *chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG of 8-bit grey with these compressed rows, whatever its header states."""
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    parts = [(b"IHDR", header), *chunks, (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in parts
    )


@pytest.fixture
def ghostscript(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program of Ghostscript's name, the first on the PATH; gives the file that it leaves when it is started."""
    mark, folder = tmp_path / "started", tmp_path / "bin"
    folder.mkdir()
    for name in ("gs", "gswin64c", "gswin32c"):
        (folder / name).write_text(f"#!/bin/sh\ntouch '{mark}'\n", encoding="ascii")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr("PIL.EpsImagePlugin.gs_binary", None)  # looked for anew
    return mark


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.eps", "a.ps", "a", "a.tif"])
def test_no_picture_starts_a_program(tmp_path: Path, ghostscript: Path, name: str) -> None:
    file = tmp_path / name
    file.write_bytes(EPS)
    for read in READERS:
        with pytest.raises(DataError, match="by its content; fetch or convert it"):
            read(file)
    assert not ghostscript.exists()
    # The attack is one: without a list of formats, Pillow starts it.
    with pytest.raises(Exception), Image.open(file) as picture:  # noqa: B017, PT011 (any: what was started is no Ghostscript)
        picture.load()
    assert ghostscript.exists()


@pytest.mark.parametrize("form", FOREIGN)
def test_other_formats_are_refused_under_any_name(tmp_path: Path, form: str) -> None:
    mode = {"MSP": "1", "XBM": "1", "SPIDER": "F"}.get(form, "RGB")
    size = (32, 32)
    (tmp_path / "a.png").write_bytes(encoded(form, size, mode))
    for read in READERS:
        with pytest.raises(DataError):
            read(tmp_path / "a.png")


@pytest.mark.parametrize("form", FORMATS)
def test_our_formats_are_read_under_any_name(tmp_path: Path, form: str) -> None:
    (tmp_path / "a.xyz").write_bytes(encoded(form))
    assert open_picture(tmp_path / "a.xyz").size == size_of(tmp_path / "a.xyz") == (8, 8)


@pytest.mark.parametrize("side", [20_000, 2**31 - 1])
def test_a_bomb_is_refused_before_it_is_decoded(tmp_path: Path, side: int) -> None:
    (tmp_path / "a.png").write_bytes(png(side, side, b"\0" * 1000))
    with pytest.raises(DataError) as refused:
        open_picture(tmp_path / "a.png")
    assert str(tmp_path / "a.png") in str(refused.value) and str(refused.value).isprintable()


@pytest.mark.parametrize("kind", [b"zTXt", b"iTXt", b"iCCP"])
def test_a_compressed_note_of_a_picture_is_bounded(tmp_path: Path, kind: bytes) -> None:
    """Text of a gigabyte in a chunk of a megabyte, beside an image that is small."""
    body = zlib.compress(b"\0" * 2**27)
    chunk = b"k\0\0" + (b"\0\0\0" if kind == b"iTXt" else b"") + body
    if kind == b"iTXt":
        chunk = b"k\0\x01\0\0\0" + body
    (tmp_path / "a.png").write_bytes(png(8, 8, b"\0" * 72, (kind, chunk)))
    try:
        kept = open_picture(tmp_path / "a.png").info
    except DataError:
        kept = {}
    assert all(len(str(value)) < 2**21 for value in kept.values())


@pytest.mark.parametrize("form", FORMATS)
def test_a_cut_picture_is_refused_by_name_or_whole(tmp_path: Path, form: str) -> None:
    rng = np.random.default_rng(0)
    stream = io.BytesIO()
    Image.fromarray(rng.integers(0, 256, (16, 16, 3), np.uint8)).save(stream, form)
    content = stream.getvalue()
    said = [_said(tmp_path / "a.png", content[:length]) for length in range(0, len(content), max(1, len(content) // 40))]
    refusals = [line for line in said if line]
    assert len(refusals) > 10
    assert all(line.startswith(f"{tmp_path / 'a.png'}: ") and line.isprintable() for line in refusals)


def _said(file: Path, content: bytes) -> str:
    """What is said of a file with this content; nothing where it is decoded."""
    file.write_bytes(content)
    try:
        open_picture(file)
    except DataError as error:
        return str(error)
    return ""


@given(st.sampled_from(FORMATS), st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), min_size=1, max_size=8))
@settings(max_examples=400)
def test_flipped_bytes_give_a_picture_or_one_line(form: str, flips: list[tuple[int, int]]) -> None:
    content = bytearray(encoded(form))
    for place, value in flips:
        content[place % len(content)] ^= value
    # Each is a refusal that `open_picture` tells in one line, which the next test holds.
    with suppress(*REFUSALS), opened(bytes(content)) as picture:
        picture.load()


@pytest.mark.parametrize("read", READERS, ids=lambda read: read.__name__)
def test_whatever_a_decoder_raises_is_one_line(
    tmp_path: Path, read: Callable[[Path], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: object, **kwargs: object) -> None:
        raise struct.error("a\nb\x1b[2J" + "x" * 10_000)

    monkeypatch.setattr(Image, "open", fail)
    (tmp_path / "a.png").write_bytes(b"x")
    with pytest.raises(DataError) as refused:
        read(tmp_path / "a.png")
    assert str(refused.value).isprintable() and len(str(refused.value)) < 1000


def test_a_folder_or_a_pipe_is_no_picture(tmp_path: Path) -> None:
    (tmp_path / "folder.png").mkdir()
    os.mkfifo(tmp_path / "pipe.png")
    for name in ("folder.png", "pipe.png"):
        with pytest.raises(DataError):
            size_of(tmp_path / name)


def test_pillow_is_given_files_in_one_place_alone() -> None:
    root = Path(__file__).parents[2]
    calls = [path.relative_to(root).as_posix() for folder in ("gkd_core", "flows") for path in (root / folder).rglob("*.py")
             if "Image.open(" in path.read_text(encoding="utf-8")]  # fmt: skip
    assert calls == ["gkd_core/data/files/pictures.py"]
