"""Which labels go with which images: groups whose keys are the same, and how their folders differ."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from gkd_core.data.describe.content import Kinds, spread_over
from gkd_core.data.describe.names import Folder, Group

ENOUGH = 0.5  # of the smaller group's keys that both must have
TRIED = 200  # keys by which a partner is looked for
FEW = 64  # groups of labels that one of images is held against
MANY_VALUES = 256
SPLIT_WORDS = (
    "train", "training", "val", "valid", "validation", "test", "testing", "dev", "eval", "trainval", "minival", "holdout",
)  # fmt: skip
WORD = re.compile(r"[_\-. ]+[^_\-. ]+")
SPLIT_WORD = re.compile(rf"(?<![A-Za-z0-9])({'|'.join(sorted(SPLIT_WORDS, key=len, reverse=True))})(?![A-Za-z0-9])", re.I)


@dataclass(frozen=True)
class Affixes:
    """What stands before and after the key in a name."""

    head: str
    tail: str
    suffix: str

    def pattern(self, folders: str) -> str:
        """The pattern of names in `folders`, which is empty or ends in a slash."""
        return f"{folders}{self.head}*{self.tail}{self.suffix}"


@dataclass(frozen=True, eq=False)
class Match:
    """A group of images and that of their labels.

    Both lie below `above`, then in `own` folders that differ, then in the same folders `below`. `split` is the word of `own` that
    both have, which then reads `{split}` there.
    """

    images: Group
    labels: Group
    image_affixes: Affixes
    label_affixes: Affixes
    above: Folder
    own: tuple[Folder, Folder]
    below: Folder
    split: str | None
    keys: dict[str, str]
    """Keys of images, each with that of its label."""

    @property
    def rule(self) -> tuple[object, ...]:
        """What it has in common with matches that one catalog entry can hold."""
        return self.image_affixes, self.label_affixes, self.own


def matched(groups: Sequence[Group], kinds: Kinds) -> tuple[list[Match], list[Group]]:
    """For each group of images the best group of labels, if there is one; and the groups of labels that were not chosen."""
    labels = [group for group in groups if kinds.is_labels(group)]
    by_key: dict[tuple[bool, str], list[Group]] = defaultdict(list)
    for group in labels:
        for key in group.names:
            by_key[False, key].append(group)
        for key in group.headless if group.head else ():
            by_key[True, key].append(group)
    found = []
    for images in groups:
        if not kinds.is_labels(images):
            candidates = list(_candidates(images, by_key))
            found += [min(candidates, key=lambda match: _order(match, kinds))] if candidates else []
    chosen = {match.labels for match in found}
    return found, [group for group in labels if group not in chosen]


def _candidates(images: Group, by_key: dict[tuple[bool, str], list[Group]]) -> Iterator[Match]:
    """Groups of labels with the same keys; heads are taken off only where nothing matches with them."""
    ways = [(False, False), (True, True), (True, False), (False, True)] if images.head else [(False, False), (False, True)]
    for bare, label_bare in ways:
        own = images.headless if bare else dict(zip(images.names, images.names, strict=True))
        votes = Counter(group for key in spread_over(list(own), TRIED) for group in by_key.get((label_bare, key), ()))
        any_found = False
        for labels, _ in votes.most_common(FEW):
            theirs = labels.headless if label_bare else dict(zip(labels.names, labels.names, strict=True))
            keys = {own[key]: theirs[key] for key in own if key in theirs}
            if len(keys) >= ENOUGH * min(len(own), len(theirs)):
                any_found = True
                yield _match(images, labels, bare, label_bare, keys)
        if any_found:
            return


def _match(images: Group, labels: Group, bare: bool, label_bare: bool, keys: dict[str, str]) -> Match:
    heads = images.head if bare else "", labels.head if label_bare else ""
    tails = images.tail, labels.tail
    # The words that both have next to the key are part of the key.
    shared = len("".join(_common(*(tuple(WORD.findall(tail)) for tail in tails))))
    tails = tails[0][shared:], tails[1][shared:]
    heads = ("", "") if heads[0] == heads[1] else heads
    above = _common(images.folder, labels.folder)
    rest = images.folder[len(above) :], labels.folder[len(above) :]
    below = tuple(reversed(_common(rest[0][::-1], rest[1][::-1])))
    own = rest[0][: len(rest[0]) - len(below)], rest[1][: len(rest[1]) - len(below)]
    own, split = _split_of(own)
    affixes = [Affixes(*each) for each in zip(heads, tails, (_suffix(images), _suffix(labels)), strict=True)]
    return Match(images, labels, affixes[0], affixes[1], above, own, below, split, keys)


def _suffix(group: Group) -> str:
    spellings = group.spellings
    return spellings.pop() if len(spellings) == 1 else group.suffix


def _split_of(own: tuple[Folder, Folder]) -> tuple[tuple[Folder, Folder], str | None]:
    """Folders such as `train_images` and `train_labels` with `{split}` in the place of the word."""
    texts = ["/".join(folder) for folder in own]
    found = [SPLIT_WORD.findall(text) for text in texts]
    if not all(len(words) == 1 for words in found) or found[0] != found[1]:
        return own, None
    first, second = (tuple(SPLIT_WORD.sub("{split}", text).split("/")) for text in texts)
    return (first, second), found[0][0]


def _common(one: Folder, other: Folder) -> Folder:
    """What both begin with."""
    count = next((index for index, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
    return one[:count]


def _words_of(group: Group) -> set[str]:
    return set(SPLIT_WORD.findall("/".join(group.folder)))


def _order(match: Match, kinds: Kinds) -> tuple[float, ...]:
    """The best first: of the same split, most keys in common, classes before instances, numbers before colours, near ones."""
    looks = kinds.looks[match.labels]
    many = any(look.values > MANY_VALUES for look in looks)
    one_channel = all(look.one_channel for look in looks)
    name = f"{'/'.join(match.labels.folder)}/{match.labels.tail}".lower()
    return (
        _words_of(match.images) != _words_of(match.labels),
        -round(len(match.keys) / max(1, len(match.images.names)), 1),
        "instance" in name,
        many,
        not one_channel,
        "trainid" not in name,
        -len(match.above) - len(match.below),
    )
