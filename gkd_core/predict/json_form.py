"""Images and label maps in JSON: how a server is asked for a student's answer, and what it answers."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from typing import Any

import numpy as np

from gkd_core.errors import DataError
from gkd_core.messages import given_value
from gkd_core.predict.answer import Answer
from gkd_core.predict.outputs import label_picture, save_png
from gkd_core.predict.pictures import Picture, decode_picture

IMAGE, PIXELS = "image", "pixels"
LABEL_MAP, HEIGHT, WIDTH, CLASSES = "label_map", "height", "width", "classes"
EXPECTED = f'expected {{"inputs": [{{"{IMAGE}": "<base64 of a PNG or JPEG file>"}}]}}'


def asked_picture(row: Mapping[Any, object], name: str) -> Picture:
    """The image of one row of a request.

    Args:
        row: `image`, the bytes of an image file in base64; or `pixels`, lists of lists of whole numbers from 0 to 255, (height,
            width, 3) in red, green, blue. What is None or NaN is not given.
        name: what messages call the image.

    Raises:
        DataError: the row has none or both, or it is damaged, too large, or not of this form.
    """
    given = {key: row[key] for key in (IMAGE, PIXELS) if key in row and not _is_missing(row[key])}
    if len(given) != 1:
        found = f"both {IMAGE} and" if given else f"neither {IMAGE} nor"
        raise DataError(f"{name}: has {found} {PIXELS}; {EXPECTED}, or {PIXELS} in its place")
    if IMAGE in given:
        return decode_picture(_file_of(given[IMAGE], name), name)
    return Picture(_pixels_of(given[PIXELS], f"{name}: {PIXELS}"))


def answered(answer: Answer) -> dict[str, object]:
    """What a server says of an image: `label_map`, its train ids as a PNG of one channel in base64; `height` and `width` in
    pixels, of the image and of the label map alike; `classes`, what the train ids are called, in their order.
    """
    stream = io.BytesIO()
    save_png(label_picture(answer.labels, None), stream)
    height, width = answer.labels.shape
    content = base64.b64encode(stream.getvalue()).decode("ascii")
    return {LABEL_MAP: content, HEIGHT: height, WIDTH: width, CLASSES: list(answer.classes)}


def _is_missing(value: object) -> bool:
    return value is None or (isinstance(value, float) and value != value)


def _file_of(text: object, name: str) -> bytes:
    if not isinstance(text, str):
        raise DataError(f"{name}: a {type(text).__name__}; {EXPECTED}")
    try:
        return base64.b64decode("".join(text.split()), validate=True)  # of the lines that `base64` writes, the ends go
    except ValueError:  # of what is not ASCII, too
        raise DataError(f"{name}: {given_value(text, 40)} is no base64; {EXPECTED}") from None


def _pixels_of(values: object, name: str) -> np.ndarray:
    expected = "expected lists of shape (height, width, 3), of whole numbers from 0 to 255"
    try:
        pixels = np.asarray(values)
    except (ValueError, TypeError, OverflowError):
        raise DataError(f"{name}: rows of different lengths, or what is no number; {expected}") from None
    if pixels.ndim != 3 or pixels.shape[2] != 3 or 0 in pixels.shape:
        raise DataError(f"{name}: of shape {pixels.shape}; {expected}, one image a row")
    if pixels.dtype.kind not in "iu":
        raise DataError(f"{name}: of kind {pixels.dtype}; {expected}")
    if pixels.min() < 0 or pixels.max() > 255:
        raise DataError(f"{name}: values from {pixels.min()} to {pixels.max()}; {expected}")
    return pixels.astype(np.uint8)
