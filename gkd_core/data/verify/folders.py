"""What is odd in folders that may hold anything: links in circles or to nothing, folders that may not be read, file names that
look alike to people and differ to programs, and names that programs cannot hold.
"""

from __future__ import annotations

import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath

from gkd_core.data.catalog.entries import name_around_wildcard
from gkd_core.data.files.folders import IMAGE_SUFFIXES, Tree
from gkd_core.data.verify.faults import Kind

Place = tuple[Path, Kind, str]
"""Where something is wrong, what, and its particulars."""


def problems(tree: Tree) -> list[Place]:
    """The places of a tree that could not be entered."""
    return [(closed.path, Kind[closed.barrier.name], closed.detail) for closed in tree.closed]


def loose(name: str) -> str:
    """A name without what is easily got wrong: case, the form of accents, and which image suffix it has."""
    path = PurePosixPath(name)
    bare = path.with_suffix("") if path.suffix.lower() in IMAGE_SUFFIXES else path
    return unicodedata.normalize("NFC", str(bare)).casefold()


def is_odd(name: str) -> bool:
    """Whether a name has control characters, such as a line's end, or bytes that are no UTF-8."""
    return any(unicodedata.category(char) in ("Cc", "Cs", "Zl", "Zp") for char in name)


def left_out(files: Iterable[Path], pattern: str, taken: set[Path]) -> Iterator[Path]:
    """Image files not `taken` that `pattern` would take in another case, with another image suffix, or in another folder."""
    prefix, suffix = name_around_wildcard(pattern)
    start, end = loose(f"{prefix}*.png")[:-1], loose(f"*{suffix}")[1:]
    for path in files:
        if path not in taken and path.suffix.lower() in IMAGE_SUFFIXES:
            name = loose(path.name)
            if name.startswith(start) and name.endswith(end):
                yield path


def same_but_case(names: Iterable[str]) -> list[list[str]]:
    """Groups of names that are one on a file system that ignores case or the form of accents, as macOS and Windows do."""
    groups: dict[str, list[str]] = defaultdict(list)
    for name in names:
        groups[unicodedata.normalize("NFC", name).casefold()].append(name)
    return [group for group in groups.values() if len(group) > 1]
