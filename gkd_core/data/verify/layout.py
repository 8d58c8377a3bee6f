"""A split as it lies on disk: its images and their labels, and what is missing, misnamed or miscounted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from gkd_core.data.catalog import Catalog
from gkd_core.data.entries import DatasetEntry, fixed_folder
from gkd_core.data.reading import key_of, listed_names, read_list, resolve_encoding
from gkd_core.data.taxonomy import LabelEncoding
from gkd_core.data.verify.files import Item
from gkd_core.data.verify.findings import Finding
from gkd_core.data.verify.folders import Place, walk
from gkd_core.data.verify.kinds import Kind
from gkd_core.data.verify.names import is_odd, left_out, same_but_case
from gkd_core.data.verify.pairing import pair_labels
from gkd_core.data.world.writer import MARKER
from gkd_core.errors import DataError


@dataclass(frozen=True)
class _Image:
    path: Path
    key: str
    folder_index: int


@dataclass
class Survey:
    """What there is of a split: the images that belong to it, with their labels, and what is wrong with the whole."""

    domain: str
    encoding: LabelEncoding | None = None
    items: list[Item] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)

    def add(self, places: Iterable[Place]) -> None:
        """Note what is wrong at these places."""
        self.findings += [Finding(self.domain, kind, path, detail) for path, kind, detail in places]


def survey(catalog: Catalog, reference: str, root: Path) -> Survey:
    """Look through the folders of a `dataset/split` below the data root, without reading any image.

    Raises:
        DataError: the catalog has no such dataset or split. Whatever is on disk becomes findings.
    """
    entry, split = catalog.domain(reference)
    base = entry.dataset_folder(root)
    result = Survey(reference)
    if entry.labels is not None:
        try:
            result.encoding = resolve_encoding(catalog, entry, root)
        except DataError as error:
            path = base / str(entry.label_names)
            result.add([(path, Kind.LABEL_NAMES, str(error).removeprefix(f"{path}: "))])
    images = _find_images(entry, split, base, result)
    kept = _listed(entry.split(split).list_file(base), images, result) if images else []
    _pair(entry, split, base, images, kept, result)
    result.add(_names(kept, base))
    stated = entry.split(split).count
    if kept and stated not in (None, len(kept)) and not (root / MARKER).is_file():  # a rendered world is small on purpose
        result.add([(base, Kind.COUNT, f"{len(kept)} images of {reference} are here, {stated} are stated for it")])
    return result


def _find_images(entry: DatasetEntry, split: str, base: Path, result: Survey) -> list[_Image]:
    """All images that the patterns match, before any list file."""
    images = []
    for index, pattern in enumerate(entry.image_patterns(split)):
        folder = base / fixed_folder(pattern)
        if not folder.is_dir():
            result.add([(folder, Kind.MISSING_FOLDER, f"the images of {result.domain} ({pattern}) are expected there")])
            continue
        paths = sorted(base.glob(pattern))
        labels = {path for label_pattern in entry.label_patterns(split) for path in base.glob(label_pattern)}
        tree = walk(base, pattern)
        result.add(tree.problems)
        result.add(
            (path, Kind.LEFT_OUT, f"{pattern} does not match it") for path in left_out(tree.files, pattern, {*paths, *labels})
        )
        if not paths:
            result.add([(folder, Kind.EMPTY_FOLDER, f"looked for {pattern}, the images of {result.domain}")])
        images += [_Image(path, key_of(pattern, path.relative_to(base)), index) for path in paths]
    return images


def _listed(list_file: Path | None, images: list[_Image], result: Survey) -> list[_Image]:
    """The images that the list file names; all of them where there is none."""
    if list_file is None:
        return images
    try:
        lines = read_list(list_file)
    except DataError as error:
        detail = str(error).removeprefix(f"{list_file}: ")
        result.add([(list_file, Kind.LIST_UNREADABLE, f"{detail}; nothing of {result.domain} was checked")])
        return []
    repeats = Counter(lines)
    kept = [image for image in images if listed_names(image.key) & repeats.keys()]
    meant = Counter(name for image in kept for name in listed_names(image.key) & repeats.keys())
    if not lines:
        result.add([(list_file, Kind.LIST_UNREADABLE, f"it names no image of {result.domain}")])
    result.add((list_file, Kind.LIST_ABSENT, f"'{name}' is not there") for name in repeats if name not in meant)
    result.add((list_file, Kind.LIST_REPEAT, f"'{name}' {count} times") for name, count in repeats.items() if count > 1)
    result.add((list_file, Kind.LIST_AMBIGUOUS, f"'{name}' means {count} images") for name, count in meant.items() if count > 1)
    return kept


def _pair(entry: DatasetEntry, split: str, base: Path, images: Sequence[_Image], kept: Sequence[_Image], result: Survey) -> None:
    """Make the items of the images kept; labels of images that the list file leaves out are no strays."""
    if entry.labels is None:
        result.items = [Item(result.domain, image.path) for image in kept]
        return
    for index, pattern in enumerate(entry.label_patterns(split)):
        keys = [image.key for image in images if image.folder_index == index]
        folder = base / fixed_folder(pattern)
        if not folder.is_dir():
            result.add([(folder, Kind.MISSING_FOLDER, f"the labels of {result.domain} ({pattern}) are expected there")])
            result.items += [Item(result.domain, image.path) for image in kept if image.folder_index == index]
            continue
        if not keys:
            continue
        labels = pair_labels(base, pattern, keys)
        result.add(labels.problems)
        for image in kept:
            if image.folder_index == index:
                result.items.append(Item(result.domain, image.path, labels.found.get(image.key), result.encoding))
                result.add([labels.missing[image.key]] if image.key in labels.missing else [])


def _names(kept: Sequence[_Image], base: Path) -> list[Place]:
    odd: list[Place] = [
        (image.path, Kind.ODD_NAME, "control characters, or no UTF-8")
        for image in kept
        if is_odd(image.path.relative_to(base).as_posix())
    ]
    alike = same_but_case(image.path.relative_to(base).as_posix() for image in kept)
    return odd + [(base / group[0], Kind.SAME_BUT_CASE, f"beside {', '.join(group[1:])}") for group in alike]
