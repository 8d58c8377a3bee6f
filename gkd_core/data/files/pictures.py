"""Files of pictures, decoded. Anything missing or damaged is a `DataError` that names the file."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image, ImageFile, UnidentifiedImageError

from gkd_core.data.files.blobs import DataFile, read_bytes
from gkd_core.errors import DataError
from gkd_core.messages import one_line

# Of the forty that Pillow reads some start programs (EPS Ghostscript), others few have ever tried to break.
FORMATS = ("PNG", "JPEG", "TIFF", "WEBP", "BMP", "GIF", "PPM")
# Pillow's names for several channels of 16 bits, big end first, as PNG has them; and the same, little end first.
DEEP = {"RGB;16B": "RGB;16L", "RGBA;16B": "RGBA;16L"}


def open_picture(path: DataFile) -> Image.Image:
    """The picture, fully decoded."""
    with _opened(path, read_bytes(path)) as picture:
        picture.load()
        return picture


def open_deep(path: DataFile) -> Image.Image | np.ndarray:
    """As `open_picture`, but a PNG of several channels of 16 bits is given as an array, uint16 (height, width, channels).

    Of each value Pillow keeps the upper byte alone, in which a label file of small ids has nothing but zeros. Told that the
    bytes lie the other way round, it keeps the lower one.
    """
    return decode_deep(read_bytes(path), str(path))


def decode_deep(content: bytes, name: str) -> Image.Image | np.ndarray:
    """As `open_deep`, of a file's content; `name` is what messages call it."""
    with _opened(name, content) as upper:
        form = upper.tile[0].args if upper.tile else None
        upper.load()
    if form not in DEEP:
        return upper
    with _opened(name, content) as lower:
        lower.tile = [tile._replace(args=DEEP[form]) for tile in lower.tile]
        lower.load()
    return np.asarray(upper).astype(np.uint16) << 8 | np.asarray(lower)  # type: ignore[no-any-return]


def size_of(path: DataFile) -> tuple[int, int]:
    """(width, height) of a picture in pixels, from its header; `DataError` where it has none."""
    content = path if isinstance(path, Path) else read_bytes(path)
    with _decoding(path), opened(content) as picture:
        return picture.size


def opened(source: Path | bytes) -> ImageFile.ImageFile:
    """A picture of one of our `FORMATS`, its header read: the one place where Pillow is given a file.

    Raises:
        OSError: it cannot be read, or is of none of these formats (`UnidentifiedImageError`).
        Image.DecompressionBombError: it has more pixels than may be decoded.
        Exception: decoders give many kinds for a damaged header.
    """
    if isinstance(source, Path) and source.exists() and not source.is_file():
        raise OSError("a folder, pipe or device")  # a pipe would be waited for without end
    return Image.open(io.BytesIO(source) if isinstance(source, bytes) else source, formats=FORMATS)


@contextmanager
def _opened(name: DataFile | str, content: bytes) -> Iterator[ImageFile.ImageFile]:
    with _decoding(name), opened(content) as picture:
        yield picture


@contextmanager
def _decoding(name: DataFile | str) -> Iterator[None]:
    try:
        yield
    except UnidentifiedImageError:
        raise DataError(f"{name}: no {', '.join(FORMATS[:-1])} or {FORMATS[-1]} by its content; fetch or convert it") from None
    except Image.DecompressionBombError as error:
        raise DataError(f"{name}: {error}; cut it into tiles") from None
    except Exception as error:  # decoders give many kinds for damaged files
        reason = one_line(error) or type(error).__name__
        raise DataError(f"{name}: cannot be decoded ({reason}); the file is truncated or no image, fetch it again") from None
