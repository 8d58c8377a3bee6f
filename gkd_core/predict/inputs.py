"""What a person names as images: files, folders, globs, lists and videos, each with the name that its outputs go by."""

from __future__ import annotations

import glob
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path, PurePosixPath

from gkd_core.data.files.folders import IMAGE_SUFFIXES, files_below
from gkd_core.documents import DocumentError, read_text
from gkd_core.errors import DataError
from gkd_core.messages import shown
from gkd_core.untrusted import given_path

VIDEO_SUFFIXES = frozenset({".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm"})
GEO_SUFFIXES = frozenset({".tif", ".tiff"})
LIST_SUFFIX = ".txt"
MAGIC = frozenset("*?[")


@dataclass(frozen=True)
class Input:
    """One image or video.

    Attributes:
        path: its file.
        given: what it is called in tables and messages: as it was named, below the folder that was named.
        name: path of its outputs below their folder, without a suffix; no two inputs share one.
    """

    path: Path
    given: str
    name: PurePosixPath

    @property
    def is_video(self) -> bool:
        """Whether it has frames, by its suffix."""
        return self.path.suffix.lower() in VIDEO_SUFFIXES


def find_inputs(named: Sequence[str], output: Path) -> list[Input]:
    """The images and videos that names stand for, each once, in the order of the names, those of a folder by their paths.

    Args:
        named: files; folders, of which all below counts; globs with `**` for any depth; lists, text files with a path a line,
            relative to the list's own folder.
        output: where label maps will be; nothing in it is an input.

    Raises:
        DataError: a name stands for nothing; a list is no text or names nothing; a folder cannot be entered.
    """
    found: dict[Path, Input] = {}
    for name in named:
        for item in _expanded(name):
            place = Path(os.path.abspath(item.path))
            if not place.is_relative_to(output.absolute()):
                found.setdefault(place, item)
    if not found:
        raise DataError(f"{shown(', '.join(named))}: nothing in it but what lies in {output}; name images from elsewhere")
    return _told_apart(list(found.values()))


def _expanded(name: str) -> Iterator[Input]:
    given_path(name)
    path = Path(name).expanduser() if name.startswith("~") else Path(name)
    if path.is_dir():
        yield from _of_folder(path)
    elif path.suffix.lower() == LIST_SUFFIX:
        yield from _of_list(path)
    elif not path.exists() and not path.is_symlink() and MAGIC & set(name):
        yield from _of_glob(str(path))
    else:
        # What is not there is told when its turn comes, as what is damaged.
        yield _single(path)


def _of_folder(folder: Path) -> Iterator[Input]:
    files = sorted(path for path in files_below(folder) if path.suffix.lower() in IMAGE_SUFFIXES | VIDEO_SUFFIXES)
    if not files:
        raise DataError(f"{folder}: no image and no video in this folder (looked for {', '.join(sorted(IMAGE_SUFFIXES))})")
    for path in files:
        yield Input(path, str(path), _bare(PurePosixPath(path.relative_to(folder).as_posix())))


def _of_glob(pattern: str) -> Iterator[Input]:
    found = sorted(glob.glob(pattern, recursive=True))
    fixed = os.path.dirname(pattern[: min(pattern.index(char) for char in MAGIC if char in pattern)]) or "."
    known = IMAGE_SUFFIXES | VIDEO_SUFFIXES
    images = [path for path in map(Path, found) if path.suffix.lower() in known]
    if not images:
        raise DataError(f"{shown(pattern)}: no image and no video of such a name; quote * and ? that the shell is to leave alone")
    for path in images:
        yield Input(path, str(path), _bare(PurePosixPath(os.path.relpath(path, fixed))))


def _of_list(path: Path) -> Iterator[Input]:
    try:
        lines = [line.strip() for line in read_text(path).splitlines()]
    except FileNotFoundError:
        raise DataError(f"{path}: no such list of images") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from None
    except DocumentError as error:
        raise DataError(f"{path}: no list of images ({error}); expected a path a line") from None
    named = [line for line in lines if line]
    if not named:
        raise DataError(f"{path}: an empty list; expected a path of an image a line")
    for line in named:
        file = path.parent / line
        given_path(file)
        inside = not os.path.isabs(line) and ".." not in PurePosixPath(line).parts
        yield Input(file, str(file), _bare(PurePosixPath(line if inside else file.name)))


def _single(path: Path) -> Input:
    return Input(path, str(path), _bare(PurePosixPath(path.name)))


def _bare(path: PurePosixPath) -> PurePosixPath:
    """A path without its suffix; a video keeps it, as its outputs are a folder."""
    return path if path.suffix.lower() in VIDEO_SUFFIXES or not path.stem else path.with_name(path.stem)


def _told_apart(inputs: Sequence[Input]) -> list[Input]:
    """Inputs of one name get the suffix of their file, and where that is not enough, a number."""
    shared = Counter(_key(item.name) for item in inputs)
    taken = {key for key, times in shared.items() if times == 1}
    apart = []
    for item in inputs:
        if shared[_key(item.name)] > 1:
            item = replace(item, name=next(name for name in _further_names(item) if _key(name) not in taken))
            taken.add(_key(item.name))
        apart.append(item)
    return apart


def _further_names(item: Input) -> Iterator[PurePosixPath]:
    whole = item.name.name if item.is_video else f"{item.name.name}{item.path.suffix}"
    yield item.name.with_name(whole)
    yield from (item.name.with_name(f"{whole}~{number}") for number in count(2))


def _key(name: PurePosixPath) -> str:
    """What a file system that does not tell cases apart takes a name for."""
    return name.as_posix().casefold()
