"""From catalog entries to files, and from files to arrays. Anything missing or odd is a `DataError` that names it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gkd_core.data.catalog.entries import DatasetEntry, fixed_folder, key_of, path_of
from gkd_core.data.catalog.load import Catalog
from gkd_core.data.catalog.taxonomy import ColorEncoding, LabelEncoding, NamedEncoding, resolve_colors, resolve_names
from gkd_core.data.files.blobs import DataFile
from gkd_core.data.files.folders import find
from gkd_core.data.files.label_files import read_ids, read_label
from gkd_core.data.files.lists import Meaning, Named, read_list, resolve
from gkd_core.data.files.pictures import open_picture
from gkd_core.errors import DataError
from gkd_core.messages import shown

__all__ = [
    "LabelledImages",
    "Pair",
    "list_images",
    "list_pairs",
    "path_of",
    "read_ids",
    "read_image",
    "read_label",
    "read_pair",
    "resolve_encoding",
]

EIGHT_BIT = ("RGB", "RGBA", "L", "LA", "P", "CMYK")


@dataclass(frozen=True)
class Pair:
    """An image and its label file."""

    image: DataFile
    label: DataFile


@dataclass(frozen=True)
class LabelledImages:
    """Images with labels of one encoding."""

    pairs: Sequence[Pair]
    encoding: LabelEncoding


@dataclass(frozen=True)
class _Found:
    """An image and the part of its path that its label shares: what the wildcards stand for."""

    path: Path
    key: str
    folder_index: int


def list_images(entry: DatasetEntry, root: Path, split: str) -> list[Path]:
    """Images of a split, sorted by path within each of its folders. Label files are never looked at.

    Raises:
        DataError: a folder is missing or has no image, or the list file names an image that is not there.
    """
    return [found.path for found in _find_images(entry, root, split)]


def list_pairs(entry: DatasetEntry, root: Path, split: str) -> list[Pair]:
    """Images of a split with their label files, in the order of `list_images`.

    Raises:
        DataError: as `list_images`; or the dataset is unlabelled, or a label file is missing.
    """
    if entry.labels is None:
        raise DataError(f"dataset '{entry.name}' is unlabelled: its catalog entry has no labels")
    patterns = entry.label_patterns(split)
    base = entry.dataset_folder(root)
    pairs = [
        Pair(found.path, label_path(entry, base, patterns[found.folder_index], found.key))
        for found in _find_images(entry, root, split)
    ]
    missing = [pair for pair in pairs if isinstance(pair.label, Path) and not pair.label.is_file()]
    if missing:
        raise DataError(
            f"{missing[0].label}: no such label file, expected for {missing[0].image}; "
            f"{len(missing)} of {len(pairs)} images of {entry.name}/{split} have no label"
        )
    return pairs


def resolve_encoding(catalog: Catalog, entry: DatasetEntry, root: Path) -> LabelEncoding:
    """The label ids of a labelled dataset; names are looked up in its folder where the encoding goes by names.

    Raises:
        DataError: the dataset is unlabelled, or its file of names is missing or of another version.
    """
    taxonomy = catalog.taxonomy_of(entry)
    encoding = catalog.encodings[str(entry.encoding)]
    if isinstance(encoding, NamedEncoding):
        return resolve_names(encoding, taxonomy, entry.dataset_folder(root) / str(entry.label_names))
    return resolve_colors(encoding, taxonomy) if isinstance(encoding, ColorEncoding) else encoding


def read_image(path: DataFile) -> np.ndarray:
    """An image as uint8 (height, width, 3), red green blue; `DataError` where it is unreadable or not 8 bits deep.

    Printing colours (CMYK) are converted, as by the usual loaders of ImageNet, which has a few such files.
    """
    picture = open_picture(path)
    if picture.mode not in EIGHT_BIT:
        raise DataError(f"{path}: pixel mode {picture.mode}, expected an 8-bit RGB or grey image; convert the file")
    return np.array(picture.convert("RGB"))


def read_pair(pair: Pair, encoding: LabelEncoding) -> tuple[np.ndarray, np.ndarray]:
    """The image (height, width, 3) and the train ids (height, width) of a pair, both uint8; `DataError` where sizes differ."""
    image, label = read_image(pair.image), read_label(pair.label, encoding)
    if image.shape[:2] != label.shape:
        raise DataError(
            f"{pair.label}: {label.shape[0]} x {label.shape[1]} pixels (height x width), "
            f"but its image {pair.image} has {image.shape[0]} x {image.shape[1]}"
        )
    return image, label


def label_path(entry: DatasetEntry, base: Path, pattern: str, key: str) -> Path:
    """Where the label of an image lies, below the dataset's folder `base`; or, where it is missing, should lie."""
    declared = base / path_of(pattern, key)
    if not entry.any_suffix_case:
        return declared
    candidates = [declared, *(declared.with_suffix(suffix) for suffix in (declared.suffix.lower(), declared.suffix.upper()))]
    return next((path for path in candidates if path.is_file()), declared)


def _find_images(entry: DatasetEntry, root: Path, split: str) -> list[_Found]:
    base = entry.dataset_folder(root)
    found = [
        _Found(path, key_of(pattern, path.relative_to(base)), index)
        for index, pattern in enumerate(entry.image_patterns(split))
        for path in _glob(base, pattern, entry, split)
    ]
    list_file = entry.split(split).list_file(base)
    return found if list_file is None else _keep_listed(found, base, list_file)


def _glob(base: Path, pattern: str, entry: DatasetEntry, split: str) -> list[Path]:
    domain = f"{entry.name}/{split}"
    folder = base / fixed_folder(pattern)
    if not folder.is_dir():
        raise DataError(
            f"{folder}: no such folder; {domain} has its images there ({pattern}). Check data.root and the dataset's folder"
        )
    paths = find(base, pattern, entry.any_suffix_case)
    if not paths:
        raise DataError(f"{folder}: no image of {domain} in it; looked for {pattern} below {base}")
    return paths


def _keep_listed(found: Sequence[_Found], base: Path, list_file: Path) -> list[_Found]:
    """The images that the list names, in their own order."""
    lines = read_list(list_file)
    meaning = resolve(lines, [Named(item.key, item.path.relative_to(base).as_posix()) for item in found])
    reason = _objection(meaning, found, base, len(set(lines)))
    if reason:
        raise DataError(f"{list_file}: {reason}")
    return [item for place, item in enumerate(found) if place in meaning.kept]


def _objection(meaning: Meaning, found: Sequence[_Found], base: Path, lines: int) -> str | None:
    """Why the lines of a list do not say which images are meant; None where they do."""
    expected = "expected stems or paths of images, one a line"
    for line in meaning.absent[:1]:
        return f"'{shown(line)}' is not there ({len(meaning.absent)} of {lines} lines); {expected}"
    for line, places in meaning.ambiguous.items():
        images = " and ".join(found[place].path.relative_to(base).as_posix() for place in places[:2])
        return (
            f"'{shown(line)}' means {len(places)} images ({shown(images)}); write the path below {base} of the one that is meant"
        )
    return None if meaning.kept else f"it names no image; {expected}"
