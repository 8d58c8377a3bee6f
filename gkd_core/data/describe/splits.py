"""Text files that name the images of a split."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from gkd_core.data.catalog.entries import SPLIT, key_of
from gkd_core.data.describe.layout import Layout
from gkd_core.data.describe.names import Group
from gkd_core.data.files.lists import Named, read_list, resolve
from gkd_core.errors import DataError
from gkd_core.untrusted import objection_to

SUFFIXES = (".txt", ".lst")
MOST_LISTS = 50
LARGEST = 4 * 2**20


def lists_below(files: Sequence[Path], base: Path) -> dict[str, list[str]]:
    """Text files that may be lists, by their path below `base`, with their lines."""
    found = {}
    for file in [file for file in files if file.suffix.lower() in SUFFIXES][:MOST_LISTS]:
        path = file.relative_to(base).as_posix()
        try:
            if objection_to(path) is None and file.is_file() and file.stat().st_size <= LARGEST:
                found[path] = read_list(file)
        except (DataError, OSError):
            continue
    return found


def listed_in(layout: Layout, lists: dict[str, list[str]]) -> dict[str, int]:
    """The lists whose every line is one image of a layout (with a label, where it has labels), each with how many they name."""
    if not lists or SPLIT in layout.images:
        return {}
    images = list(_images(layout))
    named = [Named(key_of(layout.images, Path(path)), path) for path, _ in images]
    found = {}
    for path, lines in lists.items():
        meaning = resolve(lines, named)
        whole = meaning.kept and not meaning.absent and not meaning.ambiguous
        if whole and all(images[place][1] for place in meaning.kept):
            found[path] = len(meaning.kept)
    return found


def _images(layout: Layout) -> Iterator[tuple[str, bool]]:
    """Paths of a layout's images below the folder that is described, and whether they are as labelled as the layout."""
    labelled: dict[Group, dict[str, str]] = {match.images: match.keys for match in layout.matches}
    for group in layout.groups:
        keys = labelled.get(group)
        for key, name in group.names.items():
            yield "/".join((*group.folder, name)), keys is None or key in keys
