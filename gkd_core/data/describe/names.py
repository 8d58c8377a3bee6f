"""Files by what their names have in common: which of a folder belong together, and what of a name is its own.

A name is a head, a key and a tail, as in `rgb_0001_mask.png`: an image and its label share the key.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath

from gkd_core.data.catalog.entries import SPLIT
from gkd_core.data.files.folders import IMAGE_SUFFIXES
from gkd_core.data.verify.folders import is_odd
from gkd_core.untrusted import objection_to

TAIL = re.compile(r"[_\-. ]+[A-Za-z][A-Za-z0-9]*$")
HEAD = re.compile(r"[A-Za-z]+[_\-. ]*(?=\d)|[A-Za-z][A-Za-z0-9]*[_\-. ]+")
SHARED = 0.8  # of the keys of a tail that must come with another tail too: `a.png` beside `a_mask.png`
LONGEST_TAIL = 4  # words
KIND = 0.05  # of a folder's files that have a tail at least
FEW_FILES = 4

Folder = tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Group:
    """The images or labels of one folder that end alike.

    Attributes:
        folder: where they lie below the folder that is described.
        tail: what all their stems end in, such as `_gtFine_labelIds`; empty where they have nothing in common.
        suffix: that of their files, in lower case.
        names: the files' names by their key, which is the stem without the tail.
    """

    folder: Folder
    tail: str
    suffix: str
    names: Mapping[str, str]

    @cached_property
    def head(self) -> str:
        """What all keys begin with: `rgb_` of `rgb_1`, `rgb_2`; it is left in the keys."""
        first = HEAD.match(next(iter(self.names)))
        found = first.group() if first else ""
        return found if all(key.startswith(found) and len(key) > len(found) for key in self.names) else ""

    @cached_property
    def headless(self) -> dict[str, str]:
        """Keys without their head, each with the whole key."""
        return {key.removeprefix(self.head): key for key in self.names}

    @property
    def spellings(self) -> set[str]:
        """The suffixes of its files as they are written: `.JPG` beside `.jpg`."""
        return {PurePosixPath(name).suffix for name in self.names.values()}

    @property
    def place(self) -> str:
        """Where its files lie and how they end, for people."""
        return "/".join((*self.folder, f"*{self.tail}{self.suffix}"))

    def path(self, base: Path, key: str) -> Path:
        """The file of a key; `base` is the folder that is described."""
        return base.joinpath(*self.folder, self.names[key])


def grouped(files: Iterable[Path], base: Path) -> tuple[list[Group], list[str]]:
    """The groups of all image files, and the paths of those whose names no catalog can hold."""
    folders: dict[Folder, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    odd = []
    for file in files:
        suffix = file.suffix.lower()
        if suffix not in IMAGE_SUFFIXES:
            continue
        relative = file.relative_to(base)
        if _is_unfit(relative):
            odd.append(relative.as_posix())
        else:
            folders[relative.parts[:-1]][suffix].append(relative.name)
    groups = []
    for folder, by_suffix in folders.items():
        stems = {suffix: {name[: -len(suffix)]: name for name in names} for suffix, names in by_suffix.items()}
        everywhere = Counter(stem for each in stems.values() for stem in each)
        for suffix, named in stems.items():
            groups += _by_tail(folder, suffix, named, everywhere)
    return groups, odd


def _is_unfit(path: PurePosixPath | Path) -> bool:
    text = path.as_posix()
    return is_odd(text) or objection_to(text) is not None or "*" in path.parent.as_posix() or SPLIT in text


def _by_tail(folder: Folder, suffix: str, names: Mapping[str, str], everywhere: Mapping[str, int]) -> list[Group]:
    tails: dict[str, dict[str, str]] = defaultdict(dict)
    accepted = _accepted(names, everywhere)
    for stem, name in names.items():
        found = TAIL.search(stem)
        tail = found.group() if found and found.group() in accepted and len(found.group()) < len(stem) else ""
        tails[tail][stem[: len(stem) - len(tail)]] = name
    return [_without_common_tail(Group(folder, tail, suffix, named)) for tail, named in tails.items()]


def _accepted(stems: Iterable[str], everywhere: Mapping[str, int]) -> set[str]:
    """Last words that say what kind of file it is: all files have it, or nearly all come without it, or with another, too."""
    stems = list(stems)
    keys: dict[str, list[str]] = defaultdict(list)
    for stem in stems:
        found = TAIL.search(stem)
        if found and found.start():
            keys[found.group()].append(stem[: found.start()])
    times = Counter(key for each in keys.values() for key in each)
    accepted = set()
    for tail, own in keys.items():
        also = sum(times[key] > 1 or key in everywhere for key in own)
        if len(own) == len(stems) or (also >= SHARED * len(own) and _is_kind(tail, len(own), len(stems))):
            accepted.add(tail)
    return accepted


def _is_kind(tail: str, own: int, all_: int) -> bool:
    """Whether so many of all files have a tail that it can say what kind of file it is, and does not number them (`_f0090`)."""
    return own >= max(2, KIND * all_) if all_ >= FEW_FILES else not tail[-1].isdigit()


def _without_common_tail(group: Group) -> Group:
    """The group with more of the words that all of its keys end in as part of the tail."""
    for _ in range(LONGEST_TAIL - 1):
        found = TAIL.search(next(iter(group.names)))
        if not found or not all(key.endswith(found.group()) and len(key) > len(found.group()) for key in group.names):
            break
        more = found.group()
        names = {key[: -len(more)]: name for key, name in group.names.items()}
        group = Group(group.folder, more + group.tail, group.suffix, names)
    return group


def some(items: Sequence[str], most: int = 3) -> str:
    """The first few of many, for a line."""
    return ", ".join(items[:most]) + (f" and {len(items) - most} more" if len(items) > most else "")
