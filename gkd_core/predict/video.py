"""Frames of a video, by PyAV or OpenCV, whichever is installed."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from gkd_core.errors import DataError, GkdError
from gkd_core.messages import one_line
from gkd_core.predict.pictures import Picture

INSTALL = "pip install av (or opencv-python-headless)"


def frames(path: Path, every: int) -> Iterator[tuple[int, Picture]]:
    """Each `every`-th frame of a video, from the first on, with its number, which counts from 1.

    Raises:
        GkdError: nothing that reads videos is installed.
        DataError: the file is missing, or is no video that can be read.
    """
    read = _reader(path)
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    first = None
    for number, pixels in enumerate(_told(path, read(path)), start=1):
        first = first or number
        if (number - 1) % every == 0:
            yield number, Picture(pixels)
    if first is None:
        raise DataError(f"{path}: a video without a frame; fetch it again")


def _reader(path: Path) -> Callable[[Path], Iterator[np.ndarray]]:
    for package, read in (("av", _by_av), ("cv2", _by_opencv)):
        if find_spec(package) is not None:
            return read
    raise GkdError(f"{path}: is a video, and nothing is installed that reads one; {INSTALL}")


def _told(path: Path, found: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
    """The frames; what a reader of videos says of a damaged one becomes an error of ours."""
    while True:
        try:
            taken = list(islice(found, 1))
        except (GkdError, MemoryError):
            raise
        except Exception as error:  # of its many formats
            raise DataError(f"{path}: cannot be read as a video ({one_line(error)}); fetch it again") from None
        if not taken:
            return
        yield taken[0]


def _by_av(path: Path) -> Iterator[np.ndarray]:
    av: Any = importlib.import_module("av")
    with av.open(f"file:{path.absolute()}", options={"protocol_whitelist": "file"}) as container:
        if not container.streams.video:
            raise DataError(f"{path}: holds no pictures; give a video")
        for frame in container.decode(video=0):
            # A phone stores its frames as the sensor has them, and says how they are to be turned.
            turns = round(getattr(frame, "rotation", 0) / 90) % 4
            yield np.ascontiguousarray(np.rot90(frame.to_ndarray(format="rgb24"), turns))


def _by_opencv(path: Path) -> Iterator[np.ndarray]:
    cv2: Any = importlib.import_module("cv2")
    capture = cv2.VideoCapture(str(path.absolute()))
    try:
        if not capture.isOpened():
            raise DataError(f"{path}: no video that OpenCV reads; fetch or convert it")
        while True:
            there, pixels = capture.read()
            if not there:
                return
            yield np.ascontiguousarray(pixels[..., ::-1])
    finally:
        capture.release()
