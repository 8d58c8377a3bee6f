"""What groups of files are by their content: photographs or label maps. A few files of each kind are looked at."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

import numpy as np
from PIL import Image

from gkd_core.data.describe.names import Group
from gkd_core.data.files.label_files import ONE_CHANNEL
from gkd_core.data.files.pictures import open_picture
from gkd_core.errors import DataError

LOOKS = 6  # files of a kind that are looked at
FEW_NAMES = 16  # folders of a level that are told apart before anything was looked at
ROWS = 128
FLAT = 0.6  # share of pixels that are as the one before them: label maps have far more, photographs far less
LABEL_WORDS = {
    "label", "labels", "lbl", "mask", "masks", "gt", "gtfine", "gtcoarse", "ann", "anns", "annot", "annotation", "annotations",
    "seg", "segs", "segmentation", "segmentations", "segmentationclass", "groundtruth", "labelids", "labeltrainids", "trainids",
    "ss",
}  # fmt: skip
IMAGE_WORDS = {
    "image", "images", "img", "imgs", "rgb", "photo", "photos", "picture", "pictures", "jpegimages", "leftimg8bit", "input",
    "inputs",
}  # fmt: skip
WORD = re.compile(r"[^A-Za-z0-9]+")


@dataclass(frozen=True)
class Look:
    """What a picture is like.

    Attributes:
        size: (height, width) in pixels.
        flatness: share of pixels that are as the one to their left.
        values: different values among the rows looked at.
    """

    size: tuple[int, int]
    one_channel: bool
    lossy: bool
    flatness: float
    values: int

    @property
    def labelness(self) -> float:
        """Whether it looks like a label map, 0 to 1; one in colours a little less, as drawings do too."""
        return 0.0 if self.lossy or self.flatness < FLAT else 1.0 if self.one_channel else 0.9


@dataclass(frozen=True)
class Kinds:
    """What the groups are.

    Attributes:
        labelness: of each, above a half for labels.
        looks: by which it was judged.
        damaged: files that could not be read, each with the reason.
    """

    labelness: Mapping[Group, float]
    looks: Mapping[Group, Sequence[Look]]
    damaged: dict[Path, str]

    def is_labels(self, group: Group) -> bool:
        """Whether a group is taken for labels, not for images."""
        return self.labelness[group] > 0.5


def kinds_of(groups: Sequence[Group], base: Path) -> Kinds:
    """Judge all groups by a few files of each kind, and by their names."""
    alike: dict[Hashable, list[Group]] = defaultdict(list)
    few = [len({group.folder[end] for group in groups if group.folder}) <= FEW_NAMES for end in (0, -1)]
    for group in groups:
        first, last = (group.folder[end] if few[end] and group.folder else None for end in (0, -1))
        alike[group.suffix, group.tail, first, last, _hint(group)].append(group)
    labelness, looks, damaged = {}, {}, {}
    for same in alike.values():
        seen = []
        for path in _spread(same, base):
            try:
                seen.append(look(path))
            except DataError as error:
                damaged[path] = str(error).removeprefix(f"{path}: ")
        content = mean(each.labelness for each in seen) if seen else 0.5
        for group in same:
            labelness[group], looks[group] = content + 0.6 * _hint(group), seen
    if labelness and min(labelness.values()) > 0.5:  # all are flat, as drawings are: the least likely labels are the images
        least = min(labelness.values())
        labelness = {group: value - 1 if value == least else value for group, value in labelness.items()}
    return Kinds(labelness, looks, damaged)


def look(path: Path) -> Look:
    """Decode a picture and look at some of its rows; `DataError` where it cannot be decoded."""
    picture = open_picture(path)
    lossy = picture.format in ("JPEG", "MPO")
    width, height = picture.size
    pixels = np.asarray(picture if picture.mode in (*ONE_CHANNEL, "RGB", "RGBA", "LA", "1") else picture.convert("RGB"))
    rows = pixels[:: max(1, height // ROWS)]
    if rows.ndim == 2:
        rows = rows[..., None]
    same = (rows[:, 1:] == rows[:, :-1]).all(axis=-1)
    values = np.unique(rows.astype(np.int64) @ 65537 ** np.arange(rows.shape[-1], dtype=np.int64))  # channels as one number
    one_channel = Image.getmodebands(picture.mode) == 1
    return Look((height, width), one_channel, lossy, float(same.mean()) if same.size else 1.0, len(values))


def _hint(group: Group) -> int:
    """What the names say: 1 labels, -1 images, 0 nothing. The tail counts most, then the innermost folder."""
    for part in (group.tail, *reversed(group.folder)):
        words = set(WORD.split(part.lower()))
        if words & LABEL_WORDS:
            return 1
        if words & IMAGE_WORDS:
            return -1
    return 0


def _spread(groups: Sequence[Group], base: Path) -> list[Path]:
    """A few files from all over the groups."""
    chosen = groups[:: max(1, len(groups) // LOOKS)][:LOOKS]
    each = max(1, LOOKS // len(chosen))
    return [group.path(base, key) for group in chosen for key in spread_over(list(group.names), each)]


def spread_over(items: Sequence[str], most: int) -> list[str]:
    """At most so many of the items, evenly spread."""
    return [items[index * len(items) // most] for index in range(most)] if len(items) > most else list(items)
