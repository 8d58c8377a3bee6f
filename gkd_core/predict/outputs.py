"""What `gkd predict` writes: label maps, overlays, confidence, probabilities and a table, each file whole or not at all."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import BinaryIO, TextIO

import numpy as np
from PIL import Image

from gkd_core.errors import GkdError
from gkd_core.files import atomic_file, is_temporary, make_folders
from gkd_core.predict.answer import Answer
from gkd_core.predict.known import Distance, PartName
from gkd_core.predict.manifest import OwnIds

LABELS, OVERLAYS, CONFIDENCE, PROBABILITIES = FOLDERS = ("labels", "overlays", "confidence", "probabilities")
TABLE, REPORT = "predictions.csv", "report.html"
COLUMNS = ("image", "height", "width", "labels", "seconds", "confidence", "entropy")
FAST = 1  # of zlib: label maps are small at any level
FORMULA = ("=", "+", "-", "@", "\t", "\r")  # with which a spreadsheet begins to compute


@dataclass(frozen=True)
class Wanted:
    """What is written of each image beside its label map.

    Attributes:
        own: the ids of the source's own label files, where the label map is to have these and not train ids.
    """

    own: OwnIds | None = None
    overlay: bool = False
    confidence: bool = False
    probabilities: bool = False


def open_output(folder: Path, replace: bool) -> None:
    """Have a folder ready for outputs: it is new or empty, or with `replace` holds what an earlier call wrote, which goes.

    Raises:
        GkdError: there is something in it that may not go.
    """
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise GkdError(f"{folder}: a link or a file stands there; choose another folder for the outputs")
    make_folders(folder)
    there = sorted(path for path in folder.iterdir() if not is_temporary(path.name))
    if not there:
        return
    ours = all(path.name in (*FOLDERS, TABLE, REPORT) for path in there) and _is_table(folder / TABLE)
    if not (ours and replace):
        advice = "choose a new folder" + (", or give --replace to have what is in it removed first" if ours else "")
        raise GkdError(f"{folder}: holds {len(there)} files or folders already, such as {there[0].name}; {advice}")
    for path in sorted(there, key=lambda path: path.name == TABLE):  # last: a run that is killed here can be repeated
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def _is_table(path: Path) -> bool:
    """Whether a file is a table of ours, by its first line."""
    begin = ",".join(COLUMNS).encode()
    if not path.is_file():
        return False
    with path.open("rb") as stream:
        return stream.read(len(begin)) == begin


class Outputs:
    """Writes the answers to images below a folder."""

    def __init__(self, folder: Path, wanted: Wanted) -> None:
        self._folder, self.wanted = folder, wanted

    def path(self, kind: str, name: PurePosixPath, suffix: str) -> Path:
        """Where an output of a kind lies."""
        return self._folder / kind / name.parent / f"{name.name}{suffix}"

    def write(self, name: PurePosixPath, answer: Answer) -> str:
        """Write all that is wanted of an answer; gives the path of the label map below the folder."""
        wanted, labels = self.wanted, self.path(LABELS, name, ".png")
        write_png(label_picture(answer.labels, wanted.own), labels)
        if wanted.overlay:
            write_png(Image.fromarray(answer.overlay()), self.path(OVERLAYS, name, ".png"))
        if wanted.confidence:
            write_png(Image.fromarray(confidence_bytes(answer.confidence)), self.path(CONFIDENCE, name, ".png"))
        if wanted.probabilities:
            write_probabilities(answer.quantised(), answer.classes, self.path(PROBABILITIES, name, ".npz"))
        return labels.relative_to(self._folder).as_posix()


def label_picture(labels: np.ndarray, own: OwnIds | None) -> Image.Image:
    """Train ids (H, W) as a picture to be written: of one channel of 8 or 16 bits, or of colours, as the dataset has them."""
    return Image.fromarray(labels if own is None else own_labels(labels, own))


def own_labels(labels: np.ndarray, own: OwnIds) -> np.ndarray:
    """Train ids (H, W) as the dataset's own: uint8 or uint16 (H, W), or uint8 (H, W, 3) of colours."""
    values = np.array([0 if value is None else value for value in own.values], dtype=np.uint32)
    if own.form == "color":
        channels = np.stack([values >> 16 & 255, values >> 8 & 255, values & 255], axis=1).astype(np.uint8)
        return np.asarray(channels[labels])
    return np.asarray(values.astype(np.uint8 if values.max() < 256 else np.uint16)[labels])


def check_ids(own: OwnIds | None, classes: Sequence[str]) -> OwnIds:
    """The ids of the source's own labels; `GkdError` where they are not known, or lack a class that may be answered."""
    if own is None:
        raise GkdError("--ids dataset: the ids of the source's own labels are not known; give --ids train")
    lacking = [name for name, value in zip(classes, own.values, strict=True) if value is None]
    if lacking:
        raise GkdError(
            f"--ids dataset: {own.dataset} has no id for {len(lacking)} classes, such as '{lacking[0]}'; give --ids train"
        )
    return own


def confidence_bytes(confidence: np.ndarray) -> np.ndarray:
    """Probabilities as uint8, in 255ths."""
    return np.rint(confidence * 255).astype(np.uint8)


def write_png(picture: Image.Image, path: Path) -> None:
    """Write a picture as PNG."""
    with atomic_file(path) as temporary:
        save_png(picture, temporary)


def save_png(picture: Image.Image, target: Path | BinaryIO) -> None:
    """A picture as the PNG that every label map is."""
    picture.save(target, "PNG", compress_level=FAST)


def write_probabilities(shares: np.ndarray, classes: Sequence[str], path: Path) -> None:
    """Write `probabilities`, uint8 (K, H, W) in 255ths, and `classes` (K,) as npz."""
    with atomic_file(path) as temporary, temporary.open("wb") as stream:
        np.savez_compressed(stream, allow_pickle=False, probabilities=shares, classes=np.array(classes, dtype=np.str_))


@dataclass(frozen=True)
class Row:
    """What the table says of one image.

    Attributes:
        image: what it is called.
        labels: path of its label map below the outputs' folder.
        shares: of each class, in its pixels.
        distances: from the images that the student knows, by part; empty where there are no statistics.
    """

    image: str
    height: int
    width: int
    labels: str
    seconds: float
    confidence: float
    entropy: float
    shares: tuple[float, ...]
    distances: Mapping[PartName, Distance] = field(default_factory=dict)

    @classmethod
    def of(cls, image: str, labels: str, answer: Answer) -> Row:
        height, width = answer.labels.shape
        confidence = float(answer.confidence.mean(dtype=np.float64))
        shares = tuple(answer.shares.tolist())
        return cls(image, height, width, labels, answer.seconds, confidence, answer.entropy, shares, answer.distances)


class Table:
    """The table of predictions, a line an image."""

    def __init__(self, stream: TextIO, classes: Sequence[str], parts: Sequence[PartName] = ()) -> None:
        self._parts, self._writer = parts, csv.writer(stream, lineterminator="\n")
        distances = [name for part in parts for name in distance_columns(part)]
        self._writer.writerow([*COLUMNS, *(f"share {name}" for name in classes), *distances])

    def add(self, row: Row) -> None:
        """Write the line of an image."""
        numbers = (f"{row.seconds:.4f}", f"{row.confidence:.6f}", f"{max(0.0, row.entropy):.6f}")
        shares = (f"{share:.8g}" for share in row.shares)
        far = (f"{number:.4f}" for part in self._parts for number in row.distances[part])
        self._writer.writerow([no_formula(row.image), row.height, row.width, no_formula(row.labels), *numbers, *shares, *far])


def distance_columns(part: PartName) -> tuple[str, str]:
    """What the columns of a distance are called: its value, and its percentile."""
    return f"distance {part}", f"percentile {part}"


@contextmanager
def open_table(folder: Path, classes: Sequence[str], parts: Sequence[PartName] = ()) -> Iterator[Table]:
    """A table that takes its place in the folder when the block ends without an error; `parts` are those with distances."""
    with (
        atomic_file(folder / TABLE) as temporary,
        # A name that is no text of UTF-8 is written with the bytes that are none escaped.
        temporary.open("w", newline="", encoding="utf-8", errors="backslashreplace") as stream,
    ):
        yield Table(stream, classes, parts)


def no_formula(path: str) -> str:
    """A path that no spreadsheet takes for a formula, and that still is the path."""
    return f"./{path}" if path.startswith(FORMULA) else path
