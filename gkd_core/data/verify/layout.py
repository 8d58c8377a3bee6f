"""A split as it lies on disk: its images and their labels, and what is missing, misnamed or miscounted."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path

from gkd_core.data.catalog.entries import DatasetEntry, fixed_folder, key_of
from gkd_core.data.catalog.load import Domain
from gkd_core.data.catalog.taxonomy import LabelEncoding
from gkd_core.data.files.folders import matching, walk
from gkd_core.data.files.lists import Named, read_list, resolve
from gkd_core.data.files.reading import resolve_encoding
from gkd_core.data.verify.faults import Fault, Kind
from gkd_core.data.verify.folders import Place, is_odd, left_out, problems, same_but_case
from gkd_core.data.verify.items import Item
from gkd_core.data.verify.pairing import Labels, pair_labels
from gkd_core.data.world.writer import MARKER
from gkd_core.errors import DataError


@dataclass
class Survey:
    """What there is of a split: the images that belong to it, with their labels, and what is wrong with the whole."""

    domain: Domain
    encoding: LabelEncoding | None = None
    items: list[Item] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)

    def add(self, places: Iterable[Place]) -> None:
        """Note what is wrong at these places."""
        self.faults += [Fault(self.domain.reference, kind, path, detail) for path, kind, detail in places]


@dataclass
class _Folder:
    """One folder of a split: its images by key. Where not all of it could be entered it is not `whole`."""

    label_pattern: str | None
    images: dict[str, Path] = field(default_factory=dict)
    whole: bool = True


def survey(domain: Domain, root: Path) -> Survey:
    """Look through the folders of a split below the data root, without reading any image; what is wrong becomes faults."""
    entry, split = domain.entry, domain.split
    base = entry.dataset_folder(root)
    result = Survey(domain)
    if domain.is_labelled:
        try:
            result.encoding = resolve_encoding(domain.catalog, entry, root)
        except DataError as error:
            path = base / str(entry.label_names)
            result.add([(path, Kind.LABEL_NAMES, _without(path, error))])
    folders = [
        _look(entry, base, pattern, label_pattern, result)
        for pattern, label_pattern in zip_longest(entry.image_patterns(split), entry.label_patterns(split))
    ]
    list_file = domain.rule.list_file(base)
    images = [Named(key, path.relative_to(base).as_posix()) for folder in folders for key, path in folder.images.items()]
    kept = set(images) if list_file is None or not images else _listed(list_file, images, result)
    for folder in folders:
        _pair(entry, base, folder, kept, result)
    result.add(_names(base, [item.image for item in result.items]))
    _compare_count(domain.rule.count, base, root, result)
    return result


def _look(entry: DatasetEntry, base: Path, pattern: str, label_pattern: str | None, result: Survey) -> _Folder:
    """The images that a pattern matches, before any list file."""
    place = base / fixed_folder(pattern)
    if not place.is_dir():
        result.add([(place, Kind.MISSING_FOLDER, f"the images of {result.domain} ({pattern}) are expected there")])
        return _Folder(label_pattern)
    tree = walk(base, pattern)
    paths = matching(tree, base, pattern, entry.any_suffix_case)
    # Labels may lie beside the images: then, and only then, they lie in this tree.
    labels = [] if label_pattern is None else matching(tree, base, label_pattern, entry.any_suffix_case)
    result.add(problems(tree))
    result.add((path, Kind.LEFT_OUT, f"{pattern} does not match it") for path in left_out(tree.files, pattern, {*paths, *labels}))
    if not paths:
        result.add([(place, Kind.EMPTY_FOLDER, f"looked for {pattern}, the images of {result.domain}")])
    return _Folder(label_pattern, {key_of(pattern, path.relative_to(base)): path for path in paths}, not tree.closed)


def _listed(list_file: Path, images: Sequence[Named], result: Survey) -> set[Named]:
    """The images that the list file names; those of an ambiguous line too, so that all of them are checked."""
    try:
        lines = read_list(list_file)
    except DataError as error:
        detail = f"{_without(list_file, error)}; nothing of {result.domain} was checked"
        result.add([(list_file, Kind.LIST_UNREADABLE, detail)])
        return set()
    if not lines:
        result.add([(list_file, Kind.LIST_UNREADABLE, f"it names no image of {result.domain}")])
    meaning = resolve(lines, images)
    result.add((list_file, Kind.LIST_ABSENT, f"'{name}' is not there") for name in meaning.absent)
    result.add((list_file, Kind.LIST_REPEAT, f"the image of '{name}' {count} times") for name, count in meaning.repeated.items())
    result.add(
        (list_file, Kind.LIST_AMBIGUOUS, f"'{name}' means {len(places)} images: {_some(images[place].path for place in places)}")
        for name, places in meaning.ambiguous.items()
    )
    return {images[place] for place in meaning.kept}


def _some(names: Iterable[str]) -> str:
    first, second, *rest = names
    return f"{first}, {second}{', …' if rest else ''}"


def _pair(entry: DatasetEntry, base: Path, folder: _Folder, kept: set[Named], result: Survey) -> None:
    """Make the items of the images kept; labels of images that the list file leaves out are no strays."""
    labels = Labels()
    if folder.label_pattern is not None and folder.images:
        place = base / fixed_folder(folder.label_pattern)
        if place.is_dir():
            labels = pair_labels(entry, base, folder.label_pattern, list(folder.images))
        else:
            detail = f"the labels of {result.domain} ({folder.label_pattern}) are expected there"
            result.add([(place, Kind.MISSING_FOLDER, detail)])
    # Images in a part that could not be entered may have labels that look like strays.
    result.add([*labels.problems, *(labels.strays if folder.whole else ())])
    for key, image in folder.images.items():
        if Named(key, image.relative_to(base).as_posix()) in kept:
            result.items.append(Item(result.domain.reference, image, labels.found.get(key), result.encoding, entry.bands))
            result.add([labels.missing[key]] if key in labels.missing else [])


def _names(base: Path, images: Sequence[Path]) -> Iterator[Place]:
    names = [image.relative_to(base).as_posix() for image in images]
    yield from ((base / name, Kind.ODD_NAME, "control characters, or no UTF-8") for name in names if is_odd(name))
    for group in same_but_case(names):
        yield base / group[0], Kind.SAME_BUT_CASE, f"beside {', '.join(group[1:])}"


def _compare_count(stated: int | None, base: Path, root: Path, result: Survey) -> None:
    found = len(result.items)
    # Where nothing is found that is told already, and a rendered world is small on purpose.
    if found and stated not in (None, found) and not (root / MARKER).is_file():
        result.add([(base, Kind.COUNT, f"{found} images of {result.domain} are here, {stated} are stated for it")])


def _without(path: Path, error: DataError) -> str:
    """An error's message without the path that it begins with."""
    return str(error).removeprefix(f"{path}: ")
