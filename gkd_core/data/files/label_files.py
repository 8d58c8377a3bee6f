"""Label files in every form that an encoding may have: one channel of ids, ids beside other channels, colours."""

from __future__ import annotations

import numpy as np
from PIL import Image

from gkd_core.data.catalog.taxonomy import LabelEncoding, to_train_ids
from gkd_core.data.files.blobs import DataFile
from gkd_core.data.files.pictures import open_deep, open_picture
from gkd_core.errors import DataError

ONE_CHANNEL = ("L", "P", "I", "I;16")
COLORS = ("RGB", "RGBA", "P")


def read_label(path: DataFile, encoding: LabelEncoding) -> np.ndarray:
    """A label file as train ids, uint8 (height, width).

    Raises:
        DataError: the file is unreadable, is not of the encoding's form, or has a value outside the encoding.
    """
    return to_train_ids(read_ids(path, encoding), encoding, path)


def read_ids(path: DataFile, encoding: LabelEncoding) -> np.ndarray:
    """A label file's own ids, before any table: integers (height, width). Colours are the integers 0xRRGGBB.

    Raises:
        DataError: the file is unreadable, or is not of the encoding's form.
    """
    return READERS[encoding.form](path)


def _index(path: DataFile) -> np.ndarray:
    picture = open_picture(path)
    if picture.mode not in ONE_CHANNEL:
        raise DataError(
            f"{path}: pixel mode {picture.mode}, expected one channel of label ids; for ids in the first of several channels "
            "declare the encoding's form as first-channel, for colours an encoding with colors"
        )
    return np.asarray(picture)


def _first_channel(path: DataFile) -> np.ndarray:
    picture = open_deep(path)
    if isinstance(picture, np.ndarray):
        return picture[..., 0]
    if picture.mode not in (*ONE_CHANNEL, "RGB", "RGBA", "LA"):
        raise DataError(f"{path}: pixel mode {picture.mode}, expected channels of whole numbers with the label ids in the first")
    return _plane(picture)


def _color(path: DataFile) -> np.ndarray:
    picture = open_picture(path)
    if picture.mode not in COLORS:
        raise DataError(f"{path}: pixel mode {picture.mode}, expected a label in colours (RGB, RGBA or a palette)")
    red, green, blue = (channel.astype(np.int32) for channel in np.moveaxis(np.asarray(picture.convert("RGB")), -1, 0))
    return red << 16 | green << 8 | blue  # type: ignore[no-any-return]


def _plane(picture: Image.Image) -> np.ndarray:
    pixels = np.asarray(picture)
    return pixels if pixels.ndim == 2 else pixels[..., 0]


READERS = {"index": _index, "first-channel": _first_channel, "color": _color}
