"""Files of pictures, decoded. Anything missing or damaged is a `DataError` that names the file."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from gkd_core.data.blobs import DataFile, read_bytes
from gkd_core.errors import DataError

HEADER = 26  # bytes of a PNG up to its colour type


def open_picture(path: DataFile) -> Image.Image:
    """The picture, fully decoded."""
    return _decoded(path, read_bytes(path))


def open_deep(path: DataFile) -> Image.Image | np.ndarray:
    """As `open_picture`, but a PNG of several channels of 16 bits is given as an array, uint16 (height, width, channels).

    Pillow would cut each value down to its upper 8 bits, in which a label file of small ids has nothing but zeros.
    """
    content = read_bytes(path)
    is_png, depth, colour_type = content.startswith(b"\x89PNG"), content[24:25], content[25:HEADER]
    if is_png and depth == b"\x10" and colour_type in (b"\x02", b"\x06"):
        return _decoded_deep(path, content)
    return _decoded(path, content)


def _decoded(path: DataFile, content: bytes) -> Image.Image:
    try:
        with Image.open(io.BytesIO(content)) as picture:
            picture.load()
            return picture
    except Image.DecompressionBombError as error:
        raise DataError(f"{path}: {error}; cut it into tiles") from None
    except (OSError, SyntaxError, ValueError) as error:
        raise _damaged(path, error) from None


def _decoded_deep(path: DataFile, content: bytes) -> np.ndarray:
    # Only where it is needed: torchvision takes long to load.
    import torch
    from torchvision.io import ImageReadMode, decode_png

    try:
        pixels = decode_png(torch.frombuffer(bytearray(content), dtype=torch.uint8), mode=ImageReadMode.UNCHANGED)
    except RuntimeError as error:
        raise _damaged(path, error) from None
    return pixels.permute(1, 2, 0).numpy()  # type: ignore[no-any-return]


def _damaged(path: DataFile, error: Exception) -> DataError:
    reason = " ".join(str(error).split())[-120:]
    return DataError(f"{path}: cannot be decoded ({reason}); the file is truncated or no image, fetch it again")
