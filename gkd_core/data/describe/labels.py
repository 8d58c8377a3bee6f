"""What label files hold: in which form, which values, and how much of each."""

from __future__ import annotations

import colorsys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from gkd_core.data.catalog.taxonomy import IGNORE, Form
from gkd_core.data.files.label_files import ONE_CHANNEL, READERS
from gkd_core.data.files.pictures import open_deep, open_picture
from gkd_core.data.verify.files import label_oddities
from gkd_core.data.verify.items import count_values
from gkd_core.errors import DataError

MOST_PIXELS = 200_000_000  # of labels that are counted, unless all are
FILE_COST = 10_000  # pixels that take as long as opening a file
MOST_VALUES = 4096  # more are numbers of instances, not of classes
LOOKED_AT = 8
BLACK, WHITE, VOC_BORDER = 0x000000, 0xFFFFFF, 0xE0E0C0
VOIDS = (255, 65535, -1)


@dataclass
class Counts:
    """Values of label files.

    Attributes:
        form: where a file has its ids (`LabelEncoding.form`).
        pixels, files: of each value, how many pixels and files have it.
        read, of: files that were counted, and that there are.
        palette: colours of a palette, 0xRRGGBB by index; empty where there is none.
        damaged: files that cannot be read, with the reason.
        odd: what `gkd data verify` will refuse in them, each told once.
    """

    form: Form
    of: int
    pixels: Counter[int] = field(default_factory=Counter)
    files: Counter[int] = field(default_factory=Counter)
    read: int = 0
    palette: dict[int, int] = field(default_factory=dict)
    damaged: dict[Path, str] = field(default_factory=dict)
    odd: dict[str, Path] = field(default_factory=dict)

    @property
    def values(self) -> list[int]:
        """All values found, in ascending order."""
        return sorted(self.pixels)

    @property
    def is_usable(self) -> bool:
        """Whether the values can be classes."""
        return bool(self.pixels) and len(self.pixels) <= IGNORE + 1

    @property
    def is_whole(self) -> bool:
        """Whether every file was counted that can be read."""
        return self.read + len(self.damaged) >= self.of

    def share(self, value: int) -> float:
        """A value's share of all pixels."""
        return self.pixels[value] / self.pixels.total()

    def ignored(self) -> list[int]:
        """Values that are probably no class: a guess."""
        found = self.values
        if self.form == "color":
            return [value for value in found if value in (BLACK, VOC_BORDER)] if len(found) > 3 else []
        return [value for value in found if value in VOIDS] if len(found) > 2 else []


def count_labels(files: Sequence[Path], every: bool) -> Counts:
    """Count the values of label files: of a sample from all over them, unless there are few or `every` one is asked for."""
    form = _form(files)
    counts = Counts(form, len(files))
    budget = MOST_PIXELS
    for path in _from_all_over(files):
        if (budget <= 0 and not every) or len(counts.pixels) > MOST_VALUES:
            break
        try:
            ids = READERS[form](path)
        except DataError as error:
            counts.damaged[path] = str(error).removeprefix(f"{path}: ")
            continue
        found = count_values(ids)
        counts.pixels.update(found)
        counts.files.update(found.keys())
        counts.read += 1
        budget -= max(ids.size, FILE_COST)
        if counts.read <= LOOKED_AT:
            _note_oddities(path, counts)
    return counts


def _note_oddities(path: Path, counts: Counts) -> None:
    for kind, detail in label_oddities(path):
        counts.odd.setdefault(f"{kind.value[1]} ({detail})", path)
    picture = open_picture(path)
    if picture.mode == "P" and not counts.palette:
        colors = np.asarray(picture.getpalette("RGB"), dtype=np.int64).reshape(-1, 3)
        counts.palette = {index: int(red << 16 | green << 8 | blue) for index, (red, green, blue) in enumerate(colors)}


def _form(files: Sequence[Path]) -> Form:
    """Where the files have their ids, by a few of them."""
    forms: Counter[Form] = Counter()
    for path in _from_all_over(files)[:LOOKED_AT]:
        try:
            forms[_form_of(open_deep(path))] += 1
        except DataError:
            continue
    if forms["color"]:
        return "color"
    return forms.most_common(1)[0][0] if forms else "index"


def _form_of(picture: Image.Image | np.ndarray) -> Form:
    if isinstance(picture, np.ndarray):
        return "first-channel"
    if picture.mode in (*ONE_CHANNEL, "1"):
        return "index"
    if picture.mode == "LA":
        return "first-channel"
    red, green, blue = np.moveaxis(np.asarray(picture.convert("RGB")), -1, 0)
    grey = np.array_equal(red, green) and np.array_equal(red, blue)
    return "first-channel" if grey or not (green.any() or blue.any()) else "color"


def _from_all_over(files: Sequence[Path]) -> list[Path]:
    """The files in an order of which every beginning is spread over all of them: halves, then quarters, and so on."""
    count = len(files)
    bits = max(1, (count - 1).bit_length())
    order = (int(f"{index:0{bits}b}"[::-1], 2) for index in range(1 << bits))
    return [files[index] for index in order if index < count]


def distinct_colors(count: int) -> list[list[int]]:
    """Colours for classes that have none, (red, green, blue) each, far apart."""
    return [
        [round(255 * part) for part in colorsys.hsv_to_rgb(index * 0.618034 % 1, 0.85 - 0.35 * (index // 7 % 2), 0.9)]
        for index in range(count)
    ]
