"""Aerial pictures by rasterio: read by strips of rows, answered by strips, with their georeference on what is written."""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from gkd_core.data.files.pictures import opened
from gkd_core.errors import DataError
from gkd_core.files import atomic_file
from gkd_core.messages import one_line
from gkd_core.predict.answer import judged, overlaid, quantised
from gkd_core.predict.inputs import GEO_SUFFIXES, Input
from gkd_core.predict.known import Distance, PartName
from gkd_core.predict.outputs import (
    CONFIDENCE,
    LABELS,
    OVERLAYS,
    PROBABILITIES,
    Outputs,
    Row,
    Wanted,
    confidence_bytes,
    own_labels,
)
from gkd_core.predict.pictures import Picture, in_unit, three_channels
from gkd_core.predict.student import Segmentor

MOST_PIXELS = 2**32
GEO_TAGS = (33550, 33922, 34264, 34735)  # scale, tie points, transformation, keys
INSTALL = "pip install rasterio"


def is_geo(item: Input, say: Callable[[str], None]) -> bool:
    """Whether an input is a TIFF that rasterio is to read: it has a georeference, or more pixels than Pillow decodes.

    Where rasterio is not installed it never is; that a georeference is lost then is said in one line.
    """
    if item.path.suffix.lower() not in GEO_SUFFIXES or not item.path.is_file():
        return False
    tagged, large = _looked_at(item.path)
    if find_spec("rasterio") is None:
        if tagged:
            say(f"{item.given}: its georeference is not copied to the label map, as rasterio is not installed; {INSTALL}")
        return False
    return tagged or large


def _looked_at(path: Path) -> tuple[bool, bool]:
    """Whether a TIFF has a georeference, and whether it is too large for Pillow."""
    try:
        with opened(path) as picture:
            return any(tag in getattr(picture, "tag_v2", {}) for tag in GEO_TAGS), False
    except Image.DecompressionBombError:
        return False, True
    except Exception:  # a damaged file is told when it is read
        return False, False


class GeoPicture:
    """A picture of a TIFF, rows of which are read when they are asked for."""

    def __init__(self, dataset: Any, path: Path) -> None:
        self._dataset, self.path = dataset, path
        self.height, self.width = int(dataset.height), int(dataset.width)
        if self.height * self.width > MOST_PIXELS:
            raise DataError(f"{path}: {self.height} x {self.width} pixels, more than {MOST_PIXELS}; cut it into tiles")
        if dataset.dtypes[0] not in ("uint8", "uint16"):
            raise DataError(f"{path}: numbers of kind {dataset.dtypes[0]}; expected 8 or 16 bits a channel, convert the file")
        self._palette = _palette(dataset)

    def pixels(self, top: int, bottom: int) -> np.ndarray:
        """Rows of it, (rows, width, 3), of its first three channels, or of its first alone."""
        bands = [1, 2, 3] if self._dataset.count >= 3 else [1]
        window = ((top, bottom), (0, self.width))
        try:
            found = self._dataset.read(bands, window=window)
        except Exception as error:  # of its many codecs
            raise DataError(f"{self.path}: cannot be decoded ({one_line(error)}); the file is damaged, fetch it again") from None
        if self._palette is not None and len(found) == 1:
            return np.asarray(self._palette[found[0]])
        return three_channels(np.moveaxis(found, 0, -1), str(self.path))

    def rows(self, top: int, bottom: int) -> Tensor:
        """Rows of it, (3, rows, width) in 0..1."""
        return in_unit(self.pixels(top, bottom))


def _palette(dataset: Any) -> np.ndarray | None:
    """The colours of a picture whose numbers stand for colours, uint8 (256, 3)."""
    if dataset.colorinterp[0].name != "palette" or dataset.dtypes[0] != "uint8":
        return None
    table = np.zeros((256, 3), dtype=np.uint8)
    for index, color in dataset.colormap(1).items():
        table[index] = color[:3]
    return table


def predict_geo(segmentor: Segmentor, item: Input, outputs: Outputs) -> Row:
    """Answer a TIFF and write what is wanted as GeoTIFFs, strip by strip, in memory that does not grow with its height.

    Raises:
        DataError: it is damaged, too large, or not of 8 or 16 bits.
    """
    rasterio: Any = importlib.import_module("rasterio")
    with _opened(rasterio, item.path) as dataset:
        picture = GeoPicture(dataset, item.path)
        size = picture.height, picture.width
        with _writers(rasterio, dataset, segmentor, item.name, outputs) as writers:
            tally, watch = _Tally(len(segmentor.classes)), segmentor.watch()
            began = time.perf_counter()
            for top, scores in segmentor.strips(_first_step(picture, segmentor), size, watch):
                _write_strip(writers, tally, picture, segmentor, outputs.wanted, top, scores)
            seconds = time.perf_counter() - began
    labels = f"{LABELS}/{item.name.as_posix()}.tif"
    return tally.row(item.given, labels, size, seconds, watch.distances()[0])


class _Tally:
    """What the table will say of a picture, summed over its strips."""

    def __init__(self, classes: int) -> None:
        self.counts = np.zeros(classes, dtype=np.int64)
        self.confidence = self.entropy = 0.0

    def row(
        self, given: str, labels: str, size: tuple[int, int], seconds: float, distances: Mapping[PartName, Distance]
    ) -> Row:
        pixels = size[0] * size[1]
        shares = tuple((self.counts / pixels).tolist())
        return Row(given, *size, labels, seconds, self.confidence / pixels, self.entropy / pixels, shares, distances)


def _first_step(picture: GeoPicture, segmentor: Segmentor) -> GeoPicture | Picture:
    """The picture after the first step of the protocol, for which all of it is needed."""
    protocol = segmentor.bundle.view.protocol
    if protocol.scale == 1:
        return picture
    most = 2 * int(Image.MAX_IMAGE_PIXELS or 0)
    if picture.height * picture.width > most:
        raise DataError(f"{picture.path}: more than {most} pixels, which a protocol with a scale cannot show; cut it into tiles")
    return Picture(picture.pixels(0, picture.height)).scaled(protocol)


@contextmanager
def _opened(rasterio: Any, path: Path) -> Iterator[Any]:
    # One driver alone: GDAL's others follow addresses and other files that a file names.
    try:
        dataset = rasterio.open(str(path.absolute()), driver="GTiff")
    except rasterio.errors.RasterioIOError as error:
        raise DataError(f"{path}: no TIFF that can be read ({one_line(error)}); fetch it again") from None
    with dataset:
        yield dataset


@contextmanager
def _writers(
    rasterio: Any, dataset: Any, segmentor: Segmentor, name: PurePosixPath, outputs: Outputs
) -> Iterator[dict[str, Any]]:
    """A GeoTIFF of each kind that is wanted, each of which takes its place when the block ends without an error."""
    wanted = outputs.wanted
    colored = wanted.own is not None and wanted.own.form == "color"
    wide = wanted.own is not None and not colored and any((value or 0) > 255 for value in wanted.own.values)
    bands = {LABELS: 3 if colored else 1}
    if wanted.overlay:
        bands[OVERLAYS] = 3
    if wanted.confidence:
        bands[CONFIDENCE] = 1
    if wanted.probabilities:
        bands[PROBABILITIES] = len(segmentor.classes)
    with ExitStack() as stack:
        files = {kind: stack.enter_context(atomic_file(outputs.path(kind, name, ".tif"))) for kind in bands}
        yield {
            kind: stack.enter_context(
                rasterio.open(
                    str(file),
                    "w",
                    driver="GTiff",
                    height=dataset.height,
                    width=dataset.width,
                    count=bands[kind],
                    dtype="uint16" if wide and kind == LABELS else "uint8",
                    compress="deflate",
                    BIGTIFF="IF_SAFER",
                    **_georeference(dataset),
                )
            )
            for kind, file in files.items()
        }


def _georeference(dataset: Any) -> dict[str, Any]:
    """Where a picture lies: by a transformation, or by ground control points."""
    points, system = dataset.gcps
    if points:
        return {"crs": system, "gcps": points}
    return {"crs": dataset.crs, "transform": dataset.transform}


def _write_strip(
    writers: dict[str, Any], tally: _Tally, picture: GeoPicture, segmentor: Segmentor, wanted: Wanted, top: int, scores: Tensor
) -> None:
    strip = judged(scores, segmentor.additive, top)
    bottom = top + len(strip.labels)
    tally.counts += np.bincount(strip.labels.reshape(-1), minlength=len(segmentor.classes))
    tally.confidence += float(strip.confidence.sum(dtype=np.float64))
    tally.entropy += strip.entropy
    layers = {LABELS: strip.labels if wanted.own is None else own_labels(strip.labels, wanted.own)}
    if OVERLAYS in writers:
        seen = Picture(picture.pixels(top, bottom)).as_bytes()
        layers[OVERLAYS] = overlaid(seen, strip.labels, segmentor.colors)
    if CONFIDENCE in writers:
        layers[CONFIDENCE] = confidence_bytes(strip.confidence)
    if PROBABILITIES in writers:
        layers[PROBABILITIES] = np.moveaxis(quantised(scores, segmentor.additive), 0, -1)
    for kind, layer in layers.items():
        channels = layer[None] if layer.ndim == 2 else np.moveaxis(layer, -1, 0)
        writers[kind].write(channels, window=((top, bottom), (0, picture.width)))
