"""Files of pictures, decoded. Anything missing or damaged is a `DataError` that names the file."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from PIL import Image, ImageFile

from gkd_core.data.blobs import DataFile, read_bytes
from gkd_core.errors import DataError

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
    content = read_bytes(path)
    with _opened(path, content) as upper:
        form = upper.tile[0].args if upper.tile else None
        upper.load()
    if form not in DEEP:
        return upper
    with _opened(path, content) as lower:
        lower.tile = [tile._replace(args=DEEP[form]) for tile in lower.tile]
        lower.load()
    return np.asarray(upper).astype(np.uint16) << 8 | np.asarray(lower)  # type: ignore[no-any-return]


@contextmanager
def _opened(path: DataFile, content: bytes) -> Iterator[ImageFile.ImageFile]:
    try:
        with Image.open(io.BytesIO(content)) as picture:
            yield picture
    except Image.DecompressionBombError as error:
        raise DataError(f"{path}: {error}; cut it into tiles") from None
    except (OSError, SyntaxError, ValueError) as error:
        raise DataError(f"{path}: cannot be decoded ({error}); the file is truncated or no image, fetch it again") from None
