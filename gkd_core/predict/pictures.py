"""Anybody's images, read: 8 and 16 bits, grey, alpha, palettes, printing colours, turned as their EXIF says; files and arrays."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from gkd_core.data.catalog.entries import Protocol
from gkd_core.data.files.blobs import DataFile
from gkd_core.data.files.pictures import decode_deep, open_deep, open_picture
from gkd_core.data.files.reading import EIGHT_BIT
from gkd_core.data.files.shown import shown
from gkd_core.errors import DataError
from gkd_core.messages import one_line

FULL = {"u1": 255.0, "u2": 65535.0}  # white, by the kind of a number
SIXTEEN_BIT = ("I;16", "I;16L", "I;16B", "I;16N")
ORIENTATION = 0x0112


@dataclass(frozen=True, eq=False)
class Picture:
    """An image in memory: (height, width, 3), uint8, uint16, or float32 in 0..1; red green blue."""

    pixels: np.ndarray

    @property
    def height(self) -> int:
        return int(self.pixels.shape[0])

    @property
    def width(self) -> int:
        return int(self.pixels.shape[1])

    @property
    def nbytes(self) -> int:
        return int(self.pixels.nbytes)

    def rows(self, top: int, bottom: int) -> Tensor:
        """Rows of it, (3, rows, width) in 0..1."""
        return in_unit(self.pixels[top:bottom])

    def as_bytes(self) -> np.ndarray:
        """It as uint8 (height, width, 3), rounded."""
        if self.pixels.dtype == np.uint8:
            return self.pixels
        share = self.pixels.astype(np.float32) / FULL.get(self.pixels.dtype.str[1:], 1.0)
        return np.rint(share * 255).astype(np.uint8)

    def scaled(self, protocol: Protocol) -> Picture:
        """It after the protocol's first step, which counts in whole grey levels."""
        if protocol.scale == 1:
            return self
        first = shown(self.as_bytes(), protocol.model_copy(update={"max_size": None}))
        return Picture(first.permute(1, 2, 0).numpy())


def in_unit(pixels: np.ndarray) -> Tensor:
    """Pixels (H, W, 3) as (3, H, W) in 0..1. Of 16 bits that repeat 8 bits they are what the 8 bits give, bit for bit."""
    kind = pixels.dtype.str[1:]
    if kind not in FULL:
        return torch.from_numpy(np.ascontiguousarray(pixels)).permute(2, 0, 1).contiguous()
    wide = pixels if kind == "u1" else pixels.astype(np.int32)
    return torch.from_numpy(np.ascontiguousarray(wide)).permute(2, 0, 1).float().div_(FULL[kind])


def read_picture(path: Path) -> Picture:
    """An image file, upright.

    Raises:
        DataError: it is missing, damaged, too large to be decoded, or not an image of 8 or 16 bits.
    """
    return _picture(open_deep(path), str(path))


def decode_picture(content: bytes, name: str) -> Picture:
    """As `read_picture`, of a file's content; `name` is what messages call it."""
    return _picture(decode_deep(content, name), name)


def picture_in(file: DataFile) -> Picture:
    """An image of a dataset: a file as `read_picture` reads it, or a member of a shard.

    Raises:
        DataError: it is missing, damaged, or no image.
    """
    return read_picture(file) if isinstance(file, Path) else picture_of(open_picture(file))


def picture_of(image: object) -> Picture:
    """An image as a program has it: a path, a PIL image, an array (H, W) or (H, W, C), a tensor (C, H, W).

    Arrays and tensors hold uint8, uint16, or floats in 0..1; of one channel they are grey, a fourth one (alpha) is left out.

    Raises:
        DataError: it is none of these.
    """
    if isinstance(image, Picture):
        return image
    if isinstance(image, str | Path):
        return read_picture(Path(image))
    if isinstance(image, Image.Image):
        try:
            return Picture(_of_pillow(image, "image"))
        except OSError as error:  # a file that is decoded only now
            raise DataError(f"image: cannot be decoded ({one_line(error)}); the file is truncated or no image") from None
    if isinstance(image, Tensor):
        if image.ndim != 3 or image.shape[0] not in (1, 3, 4):
            raise DataError(f"image: a tensor {tuple(image.shape)}; expected (channels, height, width) of 1, 3 or 4 channels")
        values = image.detach().cpu().permute(1, 2, 0)
        return Picture(three_channels((values.float() if values.is_floating_point() else values).numpy(), "image"))
    if isinstance(image, np.ndarray):
        return Picture(three_channels(image, "image"))
    raise DataError(f"image: a {type(image).__name__}; expected a path, a PIL image, a numpy array or a tensor")


def three_channels(pixels: np.ndarray, name: str) -> np.ndarray:
    """An array (H, W) or (H, W, C) as (H, W, 3) of a kind that a `Picture` holds; `DataError` where it is no image."""
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    if pixels.ndim != 3 or pixels.shape[2] not in (1, 2, 3, 4) or 0 in pixels.shape:
        raise DataError(f"{name}: an array {pixels.shape}; expected (height, width) or (height, width, 1 to 4 channels)")
    colors = pixels[..., :3] if pixels.shape[2] > 2 else np.repeat(pixels[..., :1], 3, axis=2)
    if colors.dtype.kind == "f":
        colors = colors.astype(np.float32)
        if not (float(colors.min()) >= 0 and float(colors.max()) <= 1):  # false of a number that is none, too
            raise DataError(f"{name}: floats from {colors.min():g} to {colors.max():g}; expected 0 to 1")
        return colors
    if colors.dtype.str[1:] not in FULL:
        raise DataError(f"{name}: numbers of kind {colors.dtype}; expected uint8, uint16, or floats in 0..1")
    return colors.astype(colors.dtype.newbyteorder("="))


def _picture(found: Image.Image | np.ndarray, name: str) -> Picture:
    return Picture(three_channels(found, name) if isinstance(found, np.ndarray) else _of_pillow(found, name))


def _of_pillow(picture: Image.Image, name: str) -> np.ndarray:
    upright: Any = _upright(picture)
    mode = upright.mode
    if mode in SIXTEEN_BIT:
        return three_channels(np.asarray(upright).astype(np.uint16), name)
    if mode == "I":  # 32 bits, as older files of 16 bits are opened
        wide = np.asarray(upright)
        if wide.min() < 0 or wide.max() > FULL["u2"]:
            raise DataError(
                f"{name}: values from {wide.min()} to {wide.max()}; expected 8 or 16 bits a channel, convert the file"
            )
        return three_channels(wide.astype(np.uint16), name)
    if mode not in (*EIGHT_BIT, "1", "PA", "RGBX", "YCbCr"):
        raise DataError(f"{name}: pixel mode {mode}; expected grey or colours of 8 or 16 bits, convert the file")
    return np.array(upright.convert("RGB"))


def _upright(picture: Image.Image) -> Image.Image:
    """The picture as a viewer shows it. A damaged EXIF block says nothing."""
    try:
        turned = picture.getexif().get(ORIENTATION, 1)
    except Exception:  # of damaged blocks Pillow gives many kinds
        return picture
    return ImageOps.exif_transpose(picture) if turned in range(2, 9) else picture
