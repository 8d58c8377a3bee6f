"""One image and its label, read as training reads them, and the facts about both."""

from __future__ import annotations

import hashlib
import warnings
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from gkd_core.data.catalog.taxonomy import IGNORE, LabelEncoding
from gkd_core.data.files.label_files import read_ids
from gkd_core.data.preparing.conversion import read_bands
from gkd_core.data.verify.faults import Fault, Kind
from gkd_core.data.verify.files import Problem, cannot_decode, image_oddities, label_oddities, unusable, why_refused
from gkd_core.errors import DataError

SMALL_SIDE = 8
"""Pixels of a side below which an image is called tiny."""


@dataclass(frozen=True, slots=True)
class Item:
    """An image to check and its label file, if it has one that is there.

    `bands` are the channels that become red, green and blue, if they are not the first three. Without `encoding` a label's ids
    are not checked.
    """

    domain: str
    image: Path
    label: Path | None = None
    encoding: LabelEncoding | None = None
    bands: tuple[int, int, int] | None = None


@dataclass(slots=True)
class Facts:
    """What was found out about an item.

    Attributes:
        size: (height, width) of the image in pixels; None where it cannot be read.
        image_digest: Digest of the image's pixels.
        label_digest: Digest of the label's ids.
        pixels: Pixels of the label for each train id that it has.
    """

    item: Item
    faults: list[Fault] = field(default_factory=list)
    size: tuple[int, int] | None = None
    image_digest: str | None = None
    label_digest: str | None = None
    pixels: dict[int, int] = field(default_factory=dict)

    def add(self, path: Path, *problems: Problem) -> None:
        """Note what is wrong with a file."""
        self.faults += [Fault(self.item.domain, kind, path, detail) for kind, detail in problems]


def check_item(item: Item) -> Facts:
    """Read an image and its label in full. Whatever they are, this gives facts and raises nothing."""
    facts = Facts(item)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Pillow's, about what is found here anyway
        for path, check in ((item.image, _check_image), (item.label, _check_label)):
            if path is None:
                continue
            try:
                check(path, facts)
            except Exception as error:  # a fault of one file's check must not hide the others
                facts.add(path, (Kind.CHECK_FAILED, f"{type(error).__name__}: {error}"))
    return facts


def lost_item(item: Item) -> Facts:
    """The facts about an item whose reading has ended its process."""
    facts = Facts(item)
    facts.add(
        item.image, (Kind.CHECK_FAILED, "the process that reads it and its label dies; they may take more memory than there is")
    )
    return facts


def _check_image(path: Path, facts: Facts) -> None:
    problem = unusable(path)
    if problem:
        facts.add(path, problem)
        return
    try:
        image = read_bands(path, facts.item.bands)
    except DataError as error:
        facts.add(path, why_refused(path, Kind.IMAGE_MODE, error))
        return
    height, width = facts.size = image.shape[:2]
    facts.image_digest = _digest(image)
    facts.add(path, *image_oddities(path))
    if min(height, width) < SMALL_SIDE:
        facts.add(path, (Kind.TINY, f"{height} x {width} pixels"))


def _check_label(path: Path, facts: Facts) -> None:
    problem = unusable(path)
    if problem:
        facts.add(path, problem)
        return
    encoding = facts.item.encoding
    if encoding is None:  # why is a fault of the whole domain
        cause = cannot_decode(path)
        facts.add(path, *([] if cause is None else [(Kind.DAMAGED, cause)]))
        return
    try:
        ids = read_ids(path, encoding)
    except DataError as error:
        facts.add(path, why_refused(path, Kind.LABEL_MODE, error))
        return
    facts.label_digest = _digest(ids)
    facts.add(path, *label_oddities(path))
    if facts.size is not None and facts.size != ids.shape[:2]:
        facts.add(path, (Kind.SIZE, _size_detail(facts.size, ids.shape[:2], facts)))
    known = count_values(ids)
    unknown = {value: known.pop(value) for value in list(known) if value not in encoding.ids}
    if unknown:
        shown = ", ".join(f"{encoding.text_of(value)} ({count} pixels)" for value, count in list(unknown.items())[:8])
        facts.add(path, (Kind.UNKNOWN_IDS, shown + (f" and {len(unknown) - 8} more" if len(unknown) > 8 else "")))
    for value, count in known.items():
        facts.pixels[encoding.ids[value]] = facts.pixels.get(encoding.ids[value], 0) + count
    if not unknown and set(facts.pixels) == {IGNORE}:
        facts.add(path, (Kind.EMPTY_LABEL, f"all {ids.size} pixels are ignored"))


def _size_detail(image: tuple[int, ...], label: tuple[int, ...], facts: Facts) -> str:
    turned = any(fault.kind is Kind.EXIF_ROTATION for fault in facts.faults) and image == label[::-1]
    why = "; the label is of the turned view" if turned else ""
    return f"{label[0]} x {label[1]} pixels (height x width), but its image has {image[0]} x {image[1]}{why}"


def count_values(ids: np.ndarray) -> dict[int, int]:
    """Pixels of each value."""
    if ids.dtype == np.uint8:  # of most labels, and several times faster so
        counts = np.bincount(ids.ravel(), minlength=256)
        return {int(value): int(counts[value]) for value in np.flatnonzero(counts)}
    values, counts = np.unique(ids, return_counts=True)
    return {int(value): int(count) for value, count in zip(values, counts, strict=True)}


def _digest(array: np.ndarray) -> str:
    digest = hashlib.blake2b(f"{array.shape} {array.dtype} ".encode(), digest_size=16)
    digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()
