"""Which label file belongs to which image, and where one lies under a name that is nearly right."""

from __future__ import annotations

import os
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from gkd_core.data.catalog.entries import DatasetEntry, key_of, name_around_wildcard
from gkd_core.data.files.folders import IMAGE_SUFFIXES, matching, walk
from gkd_core.data.files.reading import label_path
from gkd_core.data.verify.faults import Kind
from gkd_core.data.verify.folders import Place, loose, problems


@dataclass
class Labels:
    """The labels of one folder of a split: by image key those `found`, and why one is `missing`.

    `strays` have no image; `problems` are parts of the folder that could not be entered.
    """

    found: dict[str, Path] = field(default_factory=dict)
    missing: dict[str, Place] = field(default_factory=dict)
    strays: list[Place] = field(default_factory=list)
    problems: list[Place] = field(default_factory=list)


def pair_labels(entry: DatasetEntry, base: Path, pattern: str, keys: Sequence[str]) -> Labels:
    """Look for the label of every image in a folder; `pattern` is the labels' below `base`, `keys` are the images'.

    What lies in a folder that cannot be entered is not called missing: the folder is the problem.
    """
    tree = walk(base, pattern)
    labels = Labels(problems=problems(tree))
    closed = {place.path for place in tree.closed}
    expected = {key: label_path(entry, base, pattern, key) for key in keys}
    names = _Names(tree.files, without=set(expected.values()))
    prefix, _ = name_around_wildcard(pattern)
    misnamed = set()
    for key, path in expected.items():
        if os.path.lexists(path):
            labels.found[key] = path
        elif closed.isdisjoint(path.parents):
            near = names.nearest(path, prefix + PurePosixPath(key).name)
            misnamed.add(near)
            labels.missing[key] = (
                (path, Kind.MISSING_LABEL, "no such file")
                if near is None
                else (near, Kind.MISNAMED_LABEL, f"{path.name} is expected")
            )
    known = set(keys)
    labels.strays = [
        (path, Kind.STRAY_LABEL, "no image of that name")
        for path in matching(tree, base, pattern, entry.any_suffix_case)
        if path not in misnamed and key_of(pattern, path.relative_to(base)) not in known
    ]
    return labels


class _Names:
    """Names of image files by folder, in the order of their loose form, to find those that begin like a key."""

    def __init__(self, files: Sequence[Path], without: set[Path]) -> None:
        self._by_folder: dict[Path, list[tuple[str, str]]] = defaultdict(list)
        for path in files:
            if path not in without and path.suffix.lower() in IMAGE_SUFFIXES:
                self._by_folder[path.parent].append((loose(path.name), path.name))
        for names in self._by_folder.values():
            names.sort()

    def nearest(self, expected: Path, stem: str) -> Path | None:
        """A file that differs from `expected` in case or suffix alone, else one whose name is `stem` and some ending."""
        names = self._by_folder.get(expected.parent, [])
        start, wanted = loose(f"{stem}.png"), loose(expected.name)
        begun = []
        for form, name in names[bisect_left(names, (start, "")) :]:
            if not form.startswith(start):
                break
            if form == wanted:
                return expected.with_name(name)
            if not form[len(start) :][:1].isalnum():
                begun.append(name)
        return expected.with_name(begun[0]) if begun else None
