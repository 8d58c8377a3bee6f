"""Folders as patterns of a catalog entry: which part is fixed, which names the split, which is anything."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import takewhile

from gkd_core.data.catalog.entries import SPLIT
from gkd_core.data.describe.names import Folder, Group
from gkd_core.data.describe.pairs import SPLIT_WORD, Affixes, Match

FEW_SPLITS = 24  # folders that may be splits though no name of theirs says so
MOST_SPLITS = 64
ALL = "all"


@dataclass(frozen=True)
class Arrangement:
    """Folders by a pattern, which is empty or ends in a slash; `splits` has what stands for {split} in each."""

    pattern: str
    splits: Mapping[str, tuple[str, ...]]
    of: Mapping[Folder, str]
    """The split of each folder."""


@dataclass(eq=False)
class Layout:
    """Images, and perhaps their labels, that one catalog entry can declare.

    Attributes:
        images: the pattern of images; `labels` that of labels.
        of: the split of each group of images.
    """

    images: str
    labels: str | None
    splits: Mapping[str, tuple[str, ...]]
    of: Mapping[Group, str]
    any_suffix_case: bool
    matches: Sequence[Match] = field(default_factory=list)

    @property
    def groups(self) -> list[Group]:
        """All groups of images."""
        return list(self.of)


def labelled_layouts(matches: Sequence[Match]) -> Iterator[Layout]:
    """Matches as few layouts."""
    by_rule: dict[object, list[Match]] = defaultdict(list)
    for match in matches:
        by_rule[match.rule].append(match)
    for same in by_rule.values():
        above, below = {match.above for match in same}, {match.below for match in same}
        named = any(match.split for match in same)
        if len(above) > 1 and (len(below) > 1 or named):
            for each in sorted(above):
                yield _labelled([match for match in same if match.above == each])
        else:
            yield _labelled(same)


def unlabelled_layouts(groups: Sequence[Group]) -> Iterator[Layout]:
    """Groups of images without labels, a layout for each kind of file."""
    by_suffix: dict[str, list[Group]] = defaultdict(list)
    for group in groups:
        by_suffix[group.suffix].append(group)
    for suffix, same in by_suffix.items():
        spellings = set().union(*(group.spellings for group in same))
        affixes = Affixes("", "", next(iter(spellings)) if len(spellings) == 1 else suffix)
        arranged = arrange([group.folder for group in same], only_by_words=True)
        of = {group: arranged.of[group.folder] for group in same}
        yield Layout(affixes.pattern(arranged.pattern), None, arranged.splits, of, len(spellings) > 1)


def _labelled(same: Sequence[Match]) -> Layout:
    first = same[0]
    splits: dict[str, tuple[str, ...]]
    if first.split is not None:
        below = arrange([match.below for match in same], only_by_words=True, wild_only=True)
        splits = {split_name(str(match.split)): (str(match.split),) for match in same}
        of = {match.images: split_name(str(match.split)) for match in same}
        patterns = ["/".join((*first.above, *own, "")) + below.pattern for own in first.own]
    elif _goes_by_above(same):
        beside = not any(first.own) and not first.below
        arranged = arrange([match.above for match in same], may_be_wild=beside)
        splits, of = dict(arranged.splits), {match.images: arranged.of[match.above] for match in same}
        patterns = [arranged.pattern + "".join(f"{part}/" for part in (*own, *first.below)) for own in first.own]
    else:
        arranged = arrange([match.below for match in same])
        splits, of = dict(arranged.splits), {match.images: arranged.of[match.below] for match in same}
        patterns = ["".join(f"{part}/" for part in (*first.above, *own)) + arranged.pattern for own in first.own]
    spellings = [set().union(*(getattr(match, side).spellings for match in same)) for side in ("images", "labels")]
    images, labels = first.image_affixes.pattern(patterns[0]), first.label_affixes.pattern(patterns[1])
    return Layout(images, labels, splits, of, any(len(each) > 1 for each in spellings), list(same))


def _goes_by_above(same: Sequence[Match]) -> bool:
    """Whether it is the folders above images and labels that say the split: `train/images` beside `train/labels`."""
    above, below = {match.above for match in same}, {match.below for match in same}
    return len(above) > 1 or (len(below) == 1 and _has_word(above) and not _has_word(below))


def _has_word(folders: set[Folder]) -> bool:
    return any(SPLIT_WORD.search(part) for folder in folders for part in folder)


def arrange(
    folders: Sequence[Folder], only_by_words: bool = False, may_be_wild: bool = True, wild_only: bool = False
) -> Arrangement:
    """A pattern that has all these folders, and their splits.

    Args:
        only_by_words: only folders such as `train` are splits.
        may_be_wild: whether a `*` may stand for a folder; else what differs is spelled out.
        wild_only: no folder is a split.
    """
    distinct = sorted(set(folders))
    depth = min(map(len, distinct))
    fixed = len(list(takewhile(lambda level: len({folder[level] for folder in distinct}) == 1, range(depth))))
    level = None if wild_only else _split_level(distinct, fixed, depth, only_by_words)
    if not may_be_wild and (level is None or any(folder[level + 1 :] != distinct[0][level + 1 :] for folder in distinct)):
        level = depth - 1 if all(len(folder) == depth for folder in distinct) else None
        if level is None or fixed == depth:
            spelled = {folder: "/".join(folder) for folder in distinct}
            return Arrangement(f"{SPLIT}/", {ALL: tuple(spelled.values())}, dict.fromkeys(distinct, ALL))
    if level is None:
        pattern = "".join(f"{part}/" for part in distinct[0][:fixed]) + _wild(distinct, fixed)
        return Arrangement(pattern, {ALL: ()}, dict.fromkeys(distinct, ALL))
    first = min(fixed, level)
    value = partial(_joined, first=first, level=level)
    names: dict[str, str] = {}
    for text in dict.fromkeys(map(value, distinct)):
        names[text] = new_name(split_name(text), set(names.values()))
    rest = [folder[level + 1 :] for folder in distinct]
    same = len(list(takewhile(lambda at: len({part[at] for part in rest}) == 1, range(min(map(len, rest))))))
    pattern = "".join(f"{part}/" for part in (*distinct[0][:first], SPLIT, *rest[0][:same])) + _wild(rest, same)
    return Arrangement(pattern, {name: (text,) for text, name in names.items()}, {each: names[value(each)] for each in distinct})


def _joined(folder: Folder, first: int, level: int) -> str:
    return "/".join(folder[first : level + 1])


def _split_level(folders: Sequence[Folder], fixed: int, depth: int, only_by_words: bool) -> int | None:
    """Which level of the folders names the split: the innermost with words such as `train`, else the first that differs."""
    for level in reversed(range(depth)):
        values = {_joined(folder, min(fixed, level), level) for folder in folders}
        if len(values) <= MOST_SPLITS and all(SPLIT_WORD.search(folder[level]) for folder in folders):
            return level
    if only_by_words or fixed >= depth or len({folder[fixed] for folder in folders}) > FEW_SPLITS:
        return None
    return fixed


def _wild(folders: Sequence[Folder], fixed: int) -> str:
    """What stands for the folders after the first `fixed`: one `*` a level where all are as deep, else `**`."""
    depths = {len(folder) - fixed for folder in folders}
    return "*/" * depths.pop() if len(depths) == 1 else "**/"


def split_name(text: str) -> str:
    """A folder's path as the name of a split or dataset."""
    name = re.sub(r"[^A-Za-z0-9._+-]+", "-", text).strip("-.+")[:80]
    return name or "unnamed"


def new_name(name: str, taken: set[str]) -> str:
    """The name, or with a number where it is taken."""
    number = 2
    found = name
    while found in taken:
        found, number = f"{name}-{number}", number + 1
    return found
