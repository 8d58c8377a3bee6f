"""A folder described: the catalog file that it seems to ask for, and what could not be guessed."""

from __future__ import annotations

import json
import re
import shlex
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gkd_core.data.catalog.entries import SPLIT
from gkd_core.data.catalog.load import ALWAYS_LOADED, SHIPPED, load_catalog
from gkd_core.data.describe.content import Kinds, kinds_of
from gkd_core.data.describe.draft import Draft
from gkd_core.data.describe.labels import Counts, count_labels
from gkd_core.data.describe.layout import Layout, labelled_layouts, new_name, split_name, unlabelled_layouts
from gkd_core.data.describe.names import Group, grouped, some
from gkd_core.data.describe.pairs import matched
from gkd_core.data.describe.splits import listed_in, lists_below
from gkd_core.data.files.folders import Tree, matching, walk
from gkd_core.errors import DataError
from gkd_core.messages import shown
from gkd_core.untrusted import PLAIN_NAME, objection_to

MOST_FILES = 500_000
MOST_TRIED = 20_000_000  # names held against patterns
MOST_VERIFIED = 12  # domains that the command in the head names
PLAIN = re.compile(r"[\w./-]+")


@dataclass
class Describer:
    """What is found below a folder on the way to its description."""

    folder: Path
    every: bool
    tree: Tree
    draft: Draft = field(default_factory=Draft)
    taken: set[str] = field(default_factory=set)
    encodings: dict[tuple[Any, ...], str] = field(default_factory=dict)
    domains: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        """What the folder's first dataset is called: as the folder, unless a shipped one is."""
        name = split_name(self.folder.name)
        name = name if PLAIN_NAME.fullmatch(name) else f"my-{name}"
        return f"my-{name}" if name in self.taken else name

    @property
    def place(self) -> tuple[Path, str]:
        """`data.root`, and the entry's folder below it."""
        plain = objection_to(self.folder.name) is None
        return (self.folder.parent, self.folder.name) if plain else (self.folder, ".")

    def add_labelled(self, name: str, layout: Layout, lists: dict[str, list[str]], kinds: Kinds) -> None:
        """An entry for images with labels; without them, where what the labels mean cannot be guessed."""
        files = [match.labels.path(self.folder, key) for match in layout.matches for key in match.keys.values()]
        counts = count_labels(files, self.every)
        self._tell_unreadable(counts.damaged)
        for what, path in counts.odd.items():
            self.draft.gap(f"{self._below(path)} and perhaps others: {what}")
        if not counts.is_usable:
            self.draft.gap(f"what {layout.labels} holds: {_why_unusable(counts)}. Below, its images are without labels")
            layout = Layout(layout.images, None, layout.splits, layout.of, layout.any_suffix_case)
            self.add_images(name, layout, lists, kinds)
            return
        entry = self._entry(layout) | {"labels": layout.labels, "encoding": self._encoding(name, counts)}
        goes_by_lists = self._add(name, entry, layout, lists, kinds)
        lacking = {match: [key for key in match.images.names if key not in match.keys] for match in layout.matches}
        without = [self._below(match.images.path(self.folder, key)) for match, keys in lacking.items() for key in keys]
        if without and not goes_by_lists:
            self.draft.gap(f"{len(without)} images of {name} have no label: {some(without)}")

    def add_images(self, name: str, layout: Layout, lists: dict[str, list[str]], kinds: Kinds) -> None:
        """An entry for images without labels, as stage 1a takes them for its proxy."""
        self._add(name, self._entry(layout), layout, lists, kinds)

    def _entry(self, layout: Layout) -> dict[str, Any]:
        entry: dict[str, Any] = {"folder": self.place[1], "images": layout.images}
        return entry | ({"any_suffix_case": True} if layout.any_suffix_case else {})

    def _add(self, name: str, entry: dict[str, Any], layout: Layout, lists: dict[str, list[str]], kinds: Kinds) -> bool:
        """Put an entry into the draft; whether its splits go by list files."""
        counted: Counter[str] = Counter()
        for group, split in layout.of.items():
            counted[split] += len(group.names)
        splits: dict[str, Any] = {
            split: {"folders": list(folders)} if folders else {} for split, folders in layout.splits.items()
        }
        listed = listed_in(layout, lists)
        if listed:
            counted = Counter()
            splits = {}
            for path, images in listed.items():
                split = new_name(split_name(Path(path).stem), set(splits))
                splits[split], counted[split] = {"list_in_dataset": path}, images
        sizes = Counter(look.size for group in layout.groups for look in kinds.looks[group])
        if sizes:
            entry["image_size"] = list(sizes.most_common(1)[0][0])
        self.draft.add("datasets", name, entry | {"splits": splits})
        what = "images" if layout.labels is None else "images with labels"
        for split in splits:
            self.draft.note("datasets", f"{name}/{split}: {counted[split]} {what}")
            self.domains.append(f"{name}/{split}")
        if not listed:
            self._tell_taken(layout)
        return bool(listed)

    def _tell_taken(self, layout: Layout) -> None:
        """Say where the pattern takes other files than the images meant, as `*.png` takes `a_mask.png` beside `a.png`."""
        patterns = {layout.images.replace(SPLIT, folder) for each in layout.splits.values() for folder in each or ("",)}
        if len(patterns) * len(self.tree.files) > MOST_TRIED:
            return
        taken = {path for each in patterns for path in matching(self.tree, self.folder, each, layout.any_suffix_case)}
        meant = {group.path(self.folder, key) for group in layout.groups for key in group.names}
        if others := sorted(map(self._below, taken - meant)):
            self.draft.gap(
                f"{layout.images} also takes {len(others)} files that are not meant: {some(others)}; "
                "move them to another folder, or name the images in a list file"
            )

    def _encoding(self, name: str, counts: Counts) -> str:
        """The name of an encoding, and of its taxonomy, for these values: one for all entries that have the same."""
        key = (counts.form, *counts.values)
        if key not in self.encodings:
            self.encodings[key] = f"{name}-{'colors' if counts.form == 'color' else 'ids'}"
            self.draft.add_values(f"{name}-classes", self.encodings[key], counts)
        return self.encodings[key]

    def _tell_unreadable(self, damaged: dict[Path, str]) -> None:
        lines = [f"{self._below(path)} ({why})" for path, why in damaged.items()]
        if lines:
            self.draft.gap(f"{len(lines)} of the files looked at cannot be read: {some(lines)}")

    def _below(self, path: Path) -> str:
        return path.relative_to(self.folder).as_posix()

    def tell_tree(self, odd: Sequence[str]) -> None:
        """Note what of the folder was not seen."""
        if self.tree.is_cut:
            seen = len(self.tree.files)
            self.draft.gap(f"only the first {seen} files were looked at; describe a part of the folder, or fill in the rest")
        for closed in self.tree.closed:
            self.draft.gap(f"{self._below(closed.path)}: cannot be entered ({closed.detail}); {closed.barrier.value}")
        if odd:
            self.draft.gap(
                f"{len(odd)} files with names or folders that no catalog can hold are left out; rename them: {some(odd)}"
            )

    def tell_spare(self, groups: Sequence[Group], kinds: Kinds, layouts: Sequence[Layout]) -> None:
        """Name label files that no entry has: others of the same images are chosen, or they belong to no image."""
        places: Counter[str] = Counter()
        for group in groups:
            deeper = ["…"] if len(group.folder) > 1 else []
            places["/".join([*group.folder[:1], *deeper, f"*{group.tail}{group.suffix}"])] += len(group.names)
        for place, count in places.items():
            self.draft.note("datasets", f"not used: {count} files {place}, which look like labels")
        if groups and not any(layout.labels for layout in layouts):
            self.draft.gap(
                f"which label belongs to which image: {some([group.place for group in groups])} look like labels, "
                "but their names are not those of images; give labels and encoding, or rename them"
            )
        self._tell_unreadable(kinds.damaged)

    def head(self, images: int) -> list[str]:
        """What to do with the text."""
        root, _ = self.place
        some_domains = self.domains[:MOST_VERIFIED]
        settings = ["data.world=null", f"data.root={_value(root)}", "data.catalogs=[./mine.yaml]"]
        command = ["gkd", "data", "verify", *some_domains, "--profile", "demo"]
        command += [word for setting in settings for word in ("--set", setting)]
        return [
            f"{self.folder.name}: {images} images and labels, by gkd data describe. All is guessed; name the classes first.",
            "Then, with this file as mine.yaml (in a project of gkd new as catalog.yaml, without --profile and data.catalogs):",
            f"  {shlex.join(command)}",
        ]


def describe(folder: Path, every: bool = False) -> Draft:
    """A catalog file for the images, and labels if there are any, below a folder.

    Args:
        every: count the values of every label; else of a sample, where there are many.

    Raises:
        DataError: it is no folder, or has no image.
    """
    if not folder.is_dir():
        raise DataError(f"{shown(str(folder))}: no such folder; name one that holds images")
    tree = walk(folder, "**/*", MOST_FILES)
    groups, odd = grouped(tree.files, folder)
    if odd and not groups:
        raise DataError(f"{shown(str(folder))}: no image of a name that a catalog can hold; rename them: {shown(some(odd))}")
    if not groups:
        raise DataError(f"{shown(str(folder))}: no image among the {len(tree.files)} files below it; {_seen(tree)}")
    kinds = kinds_of(groups, folder)
    matches, spare = matched(groups, kinds)
    with_labels = {match.images for match in matches}
    plain = [group for group in groups if not kinds.is_labels(group) and group not in with_labels]
    found = Describer(folder, every, tree, taken=_shipped_names())
    found.tell_tree(odd)
    lists = lists_below(tree.files, folder)
    layouts, name = list(labelled_layouts(matches)), found.name
    names: set[str] = set()
    for layout in layouts:
        names.add(each := new_name(name, names))
        found.add_labelled(each, layout, lists, kinds)
    for layout in unlabelled_layouts(plain):
        names.add(each := new_name(f"{name}-unlabelled" if layouts else name, names))
        found.add_images(each, layout, lists, kinds)
    found.tell_spare(spare, kinds, layouts)
    found.draft.head = found.head(sum(len(group.names) for group in groups))
    if layouts and layouts[0].labels is not None:
        found.draft.benchmark = _benchmark(name, found.draft)
    return found.draft


def _benchmark(name: str, draft: Draft) -> dict[str, Any] | None:
    """A benchmark to begin from; nothing where there are no two splits."""
    entry = draft.sections["datasets"].get(name, {})
    splits = list(entry.get("splits", {}))
    if "labels" not in entry or len(splits) < 2:
        return None
    source = next((split for split in splits if split.lower().startswith("train")), splits[0])
    others = [split for split in splits if split != source]
    validation = next((split for split in others if split.lower().startswith(("val", "dev"))), others[0])
    targets = {split: f"{name}/{split}" for split in others if split != validation}
    return {
        name: {
            "title": name,
            "source": f"{name}/{source}",
            "validation": f"{name}/{validation}",
            "targets": targets or {"elsewhere": "OTHER/SPLIT"},
        }
    }


def _why_unusable(counts: Counts) -> str:
    if not counts.read:
        return "none of its files can be read as labels"
    return f"it has more than {len(counts.pixels) - 1} values in {counts.read} files, as numbers of instances or lossy files have"


def _seen(tree: Tree) -> str:
    suffixes = Counter(file.suffix.lower() or "no suffix" for file in tree.files)
    kinds = some([f"{count} {shown(suffix, 20)}" for suffix, count in suffixes.most_common()])
    return f"found: {kinds}" if kinds else "it is empty"


def _shipped_names() -> set[str]:
    """Names of datasets that any shipped catalog has: one of another file may not be called so."""
    shipped = sorted(path.name.removesuffix(".yaml") for path in SHIPPED.iterdir() if path.name.endswith(".yaml"))
    return set(load_catalog([name for name in shipped if name not in ALWAYS_LOADED]).datasets)


def _value(path: Path) -> str:
    """A path as the value of a setting, which is read as YAML."""
    text = str(path)
    return text if PLAIN.fullmatch(text) else json.dumps(text, ensure_ascii=False)
