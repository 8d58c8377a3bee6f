"""What one image or label file becomes: itself where nothing must change, else PNGs."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from gkd_core.data.catalog.entries import Protocol
from gkd_core.data.catalog.taxonomy import LabelEncoding
from gkd_core.data.files.label_files import read_label
from gkd_core.data.files.pictures import open_picture, size_of
from gkd_core.data.files.reading import read_image
from gkd_core.data.files.shards import Preparation
from gkd_core.data.files.shown import scored, shown
from gkd_core.errors import DataError

IMAGE_COMPRESSION, LABEL_COMPRESSION = 3, 6  # zlib levels: images gain little above, labels much


@dataclass(frozen=True)
class Source:
    """A file to convert. An image and its label have the same `key`, the image's path within the dataset without suffix."""

    key: str
    file: Path
    image: Path


@dataclass(frozen=True)
class ImageConversion:
    """Images: cut, channels chosen, brought to the size that a protocol shows, as the preparation says."""

    preparation: Preparation

    @property
    def keeps_files(self) -> bool:
        """Whether every file stays as it is."""
        return self.preparation == Preparation()

    def kept_name(self, source: Source) -> str:
        """Name of a member that is the file itself."""
        return source.key + source.file.suffix

    def __call__(self, source: Source) -> list[tuple[str, bytes]]:
        """The members, as (name, content), that a file becomes."""
        protocol, tiles = self.preparation.protocol, self.preparation.tiles
        if tiles is None and self.preparation.bands is None and protocol is not None:
            width, height = size_of(source.file)
            if protocol.input_size(height, width) == (height, width):
                return [(self.kept_name(source), source.file.read_bytes())]
        pixels = read_bands(source.file, self.preparation.bands)
        return [
            (f"{source.key}{suffix}.png", png(_shown(part, protocol), IMAGE_COMPRESSION))
            for suffix, part in _parts(pixels, self.preparation)
        ]


@dataclass(frozen=True)
class LabelConversion:
    """Labels: to train ids, cut as their images are, brought to the size at which a protocol scores them."""

    preparation: Preparation
    encoding: LabelEncoding

    @property
    def keeps_files(self) -> bool:
        """Labels are always converted: their ids need checking only once."""
        return False

    def kept_name(self, source: Source) -> str:
        """Name of a member that is the file itself."""
        return source.key + source.file.suffix

    def __call__(self, source: Source) -> list[tuple[str, bytes]]:
        """The members, as (name, content), that a file becomes."""
        ids = read_label(source.file, self.encoding)
        width, height = size_of(source.image)
        if ids.shape != (height, width):
            raise DataError(
                f"{source.file}: {ids.shape[0]} x {ids.shape[1]} pixels (height x width), "
                f"but its image {source.image} has {height} x {width}"
            )
        return [
            (f"{source.key}{suffix}.png", png(_scored(part, self.preparation.protocol), LABEL_COMPRESSION))
            for suffix, part in _parts(ids, self.preparation)
        ]


Conversion = ImageConversion | LabelConversion


def read_bands(file: Path, bands: tuple[int, int, int] | None) -> np.ndarray:
    """An image as uint8 (height, width, 3), red green blue taken from these channels of the file; from all three, where None."""
    if bands is None:
        return read_image(file)
    picture = open_picture(file)
    pixels = np.asarray(picture)
    if pixels.ndim != 3 or pixels.dtype != np.uint8 or max(bands) >= pixels.shape[2]:
        raise DataError(f"{file}: pixel mode {picture.mode}, expected at least {max(bands) + 1} channels of 8 bits each")
    return pixels[..., list(bands)]


def png(pixels: np.ndarray, compression: int) -> bytes:
    """Pixels, uint8 (height, width) or (height, width, 3), as a PNG."""
    stream = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(stream, "PNG", compress_level=compression)
    return stream.getvalue()


def _parts(pixels: np.ndarray, preparation: Preparation) -> list[tuple[str, np.ndarray]]:
    """The tiles, each with what its name ends with; or the whole."""
    if preparation.tiles is None:
        return [("", pixels)]
    boxes = preparation.tiles.boxes(pixels.shape[0], pixels.shape[1])
    return [(box.suffix, pixels[box.top : box.bottom, box.left : box.right]) for box in boxes]


def _shown(pixels: np.ndarray, protocol: Protocol | None) -> np.ndarray:
    """An image at the size at which evaluation shows it, rounded to whole grey levels."""
    height, width = pixels.shape[:2]
    if protocol is None or protocol.input_size(height, width) == (height, width):
        return pixels
    return shown(pixels, protocol).mul_(255).round_().byte().permute(1, 2, 0).numpy()


def _scored(ids: np.ndarray, protocol: Protocol | None) -> np.ndarray:
    """Train ids at the size at which evaluation scores them."""
    return ids if protocol is None else scored(ids, protocol)
