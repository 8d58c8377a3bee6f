"""What lies below the folders of a pattern: one way to walk them, for reading and for checking, on every version of Python.

`Path.glob` takes brackets for a class of letters, follows links below `*` and not below `**`, and passes over folders that it
may not enter without a word. Here a name is what it says, links are followed, and what could not be entered is told.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum
from itertools import islice
from pathlib import Path, PurePosixPath

from gkd_core.data.catalog.entries import fixed_folder, name_around_wildcard
from gkd_core.errors import DataError


class Barrier(Enum):
    """Why a folder, or what stands in its place, could not be entered; the value is what to do."""

    NO_PERMISSION = "give the user who trains read and execute permission"
    LINK_LOOP = "remove the link"
    DANGLING_LINK = "fetch what the link points to, or remove the link"
    CHECK_FAILED = "look at the folder and its disk"


IMAGE_SUFFIXES = frozenset({".bmp", ".gif", ".jpe", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"})


@dataclass(frozen=True)
class Closed:
    """A place that could not be entered, why, and its particulars."""

    path: Path
    barrier: Barrier
    detail: str


@dataclass
class Tree:
    """What lies below a folder as deep as a pattern's wildcards reach. `closed` are the places that could not be entered;
    `folders` are those that stand where the pattern has files. With `most` it `is_cut` after so many files."""

    files: list[Path] = field(default_factory=list)
    folders: list[Path] = field(default_factory=list)
    closed: list[Closed] = field(default_factory=list)
    most: int | None = None
    is_cut: bool = False

    @property
    def room(self) -> int | None:
        """How many more files it takes; None: any number."""
        return None if self.most is None else self.most - len(self.files)


@dataclass(frozen=True)
class _Reach:
    """How many folders lie between the fixed folder of a pattern and its files; without `most` there is no end."""

    least: int
    most: int | None

    def ends_at(self, depth: int) -> bool:
        return depth >= self.least and (self.most is None or depth <= self.most)

    def goes_below(self, depth: int) -> bool:
        return self.most is None or depth < self.most


@dataclass(frozen=True)
class _FileName:
    """What a file's name begins and ends with; the wildcard between them stands for one character at least."""

    start: str
    end: str
    suffix: str
    """The part of `end` that may be written in any case."""

    def takes(self, name: str) -> bool:
        if len(name) <= len(self.start) + len(self.end) + len(self.suffix) or not name.startswith(self.start):
            return False
        bare = name[: len(name) - len(self.suffix)]
        return bare.endswith(self.end) and name[len(bare) :].lower() == self.suffix.lower()


def matching(tree: Tree, base: Path, pattern: str, any_suffix_case: bool = False) -> list[Path]:
    """Those of a tree that its pattern below `base` means, sorted; a folder of such a name is one, so that it is told of."""
    start, end = name_around_wildcard(pattern)
    suffix = PurePosixPath(pattern).suffix if any_suffix_case else ""
    suffix = suffix if end.endswith(suffix) else ""
    name = _FileName(start, end.removesuffix(suffix), suffix)
    reach, above = _reach(pattern), (base / fixed_folder(pattern)).parts
    return sorted(
        path
        for path in (*tree.files, *tree.folders)
        if name.takes(path.name) and path.parts[: len(above)] == above and reach.ends_at(len(path.parts) - len(above) - 1)
    )


def find(base: Path, pattern: str, any_suffix_case: bool = False) -> list[Path]:
    """What a pattern means below `base`, sorted; nothing where its fixed folder is not there.

    Raises:
        DataError: a folder on the way could not be entered, so that not all of it would be found.
    """
    if not (base / fixed_folder(pattern)).is_dir():
        return []
    return matching(_walk_all(base, pattern), base, pattern, any_suffix_case)


def walk(base: Path, pattern: str, most: int | None = None) -> Tree:
    """All that lies below the fixed folder of `pattern`, as deep as its wildcards reach, links followed; with `most`, the first
    so many files."""
    folder, tree = base / fixed_folder(pattern), Tree(most=most)
    above = frozenset(_identity(parent.stat()) for parent in folder.resolve().parents)
    _enter(folder, 0, _reach(pattern), above, tree)
    return tree


def files_below(folder: Path) -> Iterator[Path]:
    """All files below a folder, links followed, in no order.

    Raises:
        DataError: a folder could not be entered, or links lead in a circle.
    """
    yield from (path for path in _walk_all(folder, "**/*").files if path.is_file())


def field_images(folder: Path) -> list[Path]:
    """The images below a folder, by the suffixes of their names, in the order of their paths.

    Raises:
        DataError: there is no such folder, no image in it, or a part of it could not be entered.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder of field images; make it, or leave the setting that names it null")
    found = sorted(path for path in files_below(folder) if path.suffix.lower() in IMAGE_SUFFIXES)
    if not found:
        raise DataError(f"{folder}: no field image in it (looked for {', '.join(sorted(IMAGE_SUFFIXES))})")
    return found


def _walk_all(base: Path, pattern: str) -> Tree:
    """As `walk`, where a place that could not be entered is an error."""
    tree = walk(base, pattern)
    for closed in tree.closed:
        raise DataError(f"{closed.path}: cannot be entered ({closed.detail}); {closed.barrier.value}")
    return tree


def _reach(pattern: str) -> _Reach:
    wild = PurePosixPath(pattern).parts[:-1][len(PurePosixPath(fixed_folder(pattern)).parts) :]
    least = sum(part != "**" for part in wild)
    return _Reach(least, None if "**" in wild else least)


def _enter(folder: Path, depth: int, reach: _Reach, above: frozenset[tuple[int, int]], tree: Tree) -> None:
    """Add what lies in `folder` to `tree`; `above` identifies the folders on the way, to see a link that leads back."""
    try:
        status = folder.stat()
        with os.scandir(folder) as listing:
            limit = None if tree.room is None else tree.room + 1
            entries = sorted(islice(listing, limit), key=lambda entry: entry.name)
    except OSError as error:
        barrier = Barrier.NO_PERMISSION if isinstance(error, PermissionError) else Barrier.CHECK_FAILED
        tree.closed.append(Closed(folder, barrier, f"folder: {error.strerror}"))
        return
    here = _identity(status)
    if here in above:
        tree.closed.append(Closed(folder, Barrier.LINK_LOOP, f"leads back to {folder.resolve()}, which holds it"))
        return
    for entry in entries:
        if tree.is_cut or tree.room == 0:
            tree.is_cut = True
            return
        path = folder / entry.name
        if _is_folder(entry):
            if reach.ends_at(depth) and (path.suffix.lower() in IMAGE_SUFFIXES or not reach.goes_below(depth)):
                tree.folders.append(path)
            if reach.goes_below(depth):
                _enter(path, depth + 1, reach, above | {here}, tree)
        elif reach.goes_below(depth) and entry.is_symlink() and not path.suffix and not path.exists():
            # In the place of a folder, whose images would be missing without a word.
            tree.closed.append(Closed(path, Barrier.DANGLING_LINK, f"points to {os.readlink(path)}"))
        else:
            tree.files.append(path)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link in a circle is no folder
        return False


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino
