"""List files: which images of a split the lines of a text file mean.

A line is a name as people write it: an image's stem, its path, either with the suffix of its file, saved by any editor. Where
the line is exactly one of those it means that image and no other; a picture's suffix is taken off only where nothing else fits.
"""

from __future__ import annotations

import codecs
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath

from gkd_core.data.files.folders import IMAGE_SUFFIXES
from gkd_core.errors import DataError
from gkd_core.messages import one_line

LINE_END = re.compile(r"\r\n|\n|\r")  # str.splitlines also ends a line at characters that a file's name may hold


@dataclass(frozen=True)
class Named:
    """An image that a line may mean: what the wildcards of its pattern stand for, and its path below the dataset's folder."""

    key: str
    path: str

    @property
    def suffix(self) -> str:
        """The suffix of its file, where the wildcard does not stand for that too."""
        name = self.path.rpartition("/")[2]
        suffix = PurePosixPath(name).suffix
        return "" if self.key.endswith(suffix) else suffix

    @property
    def names(self) -> tuple[str, ...]:
        """What it is called without its folders: its stem, the stem with its suffix, its file."""
        stem = self.key.rpartition("/")[2]
        return stem, stem + self.suffix, self.path.rpartition("/")[2]


@dataclass(frozen=True)
class Meaning:
    """What the lines of a list mean, by the places of images: `kept`, and the lines that do not say one image each.

    `ambiguous` has the images that a line may mean; `repeated` the lines that mean one image again, each with how often.
    """

    kept: frozenset[int]
    absent: tuple[str, ...]
    ambiguous: dict[str, tuple[int, ...]]
    repeated: dict[str, int]


def read_list(list_file: Path) -> list[str]:
    """The lines of a list file that are not blank, in its order; `DataError` where it cannot be read."""
    try:
        text = _decoded(list_file.read_bytes())
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{list_file}: cannot be read ({one_line(error)}); expected one image stem a line, in UTF-8") from None
    return [line for line in LINE_END.split(text) if line.strip()]


def resolve(lines: Sequence[str], images: Sequence[Named]) -> Meaning:
    """Which images the lines mean. A line of several meanings is told, not guessed at."""
    index = _Index(images)
    counts = Counter(lines)
    meant = {line: index.look_up(line) for line in counts}
    ambiguous = {line.strip(): found for line, found in meant.items() if len(found) > 1}
    times: Counter[int] = Counter()
    for line, found in meant.items():
        times.update(dict.fromkeys(found, counts[line]))
    again = {line.strip(): times[found[0]] for line, found in meant.items() if len(found) == 1 and times[found[0]] > 1}
    return Meaning(
        frozenset(place for found in meant.values() for place in found),
        tuple(line.strip() for line, found in meant.items() if not found),
        ambiguous,
        again,
    )


def _decoded(content: bytes) -> str:
    # Windows' own tools write UTF-16 with a mark, its editors UTF-8 with one.
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return content.decode("utf-16")
    return content.decode("utf-8-sig")


class _Index:
    """Images by what they are called, accents composed or not."""

    def __init__(self, images: Sequence[Named]) -> None:
        self._images = images

    def look_up(self, line: str) -> tuple[int, ...]:
        """The images that a line means, by place: several where it does not say which."""
        for spelling in _spellings(line):
            if found := self._exact.look_up(spelling):
                return found
        for spelling in _spellings(line):
            for name in (spelling, _without_suffix(spelling)):
                if name and (found := self._composed.look_up(unicodedata.normalize("NFC", name))):
                    return found
        return ()

    @cached_property
    def _exact(self) -> _Names:
        return _Names(self._images)

    @cached_property
    def _composed(self) -> _Names:
        return _Names([Named(*(unicodedata.normalize("NFC", text) for text in (it.key, it.path))) for it in self._images])


class _Names:
    """Images by their names without folders; what a line says of folders then chooses among those."""

    def __init__(self, images: Sequence[Named]) -> None:
        self._images = images
        self._places: dict[str, list[int]] = defaultdict(list)
        for place, image in enumerate(images):
            for name in {*image.names, PurePosixPath(image.path).stem}:
                self._places[name].append(place)

    def look_up(self, line: str) -> tuple[int, ...]:
        folders, _, name = line.rpartition("/")
        found = [place for place in self._places.get(name, ()) if self._lies_in(place, folders)]
        # The stem of a file is a name only where no image is called so.
        declared = [place for place in found if name in self._images[place].names] or found
        whole = [place for place in declared if folders and self._is_whole(place, folders)]
        return tuple(whole or declared)

    def _lies_in(self, place: int, folders: str) -> bool:
        return not folders or f"/{self._images[place].path.rpartition('/')[0]}".endswith(f"/{folders}")

    def _is_whole(self, place: int, folders: str) -> bool:
        image = self._images[place]
        return folders in (image.key.rpartition("/")[0], image.path.rpartition("/")[0])


def _spellings(line: str) -> Iterator[str]:
    """The line as it stands; without the blanks around it; as another system writes the path."""
    yield line
    tidy = line.strip()
    yield tidy
    tidy = tidy.replace("\\", "/")
    while tidy.startswith("./"):
        tidy = tidy[2:].lstrip("/")
    yield tidy


def _without_suffix(name: str) -> str | None:
    stem, dot, suffix = name.rpartition(".")
    return stem if stem and f".{suffix}".lower() in IMAGE_SUFFIXES and dot else None
