"""A fault of a dataset, and the report that groups, prints and writes all of them. For users a fault is a finding."""

from __future__ import annotations

import json
import unicodedata
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Literal

from gkd_core.files import atomic_file

Severity = Literal["error", "warning"]
EXAMPLES = 3


class Kind(Enum):
    """One kind of fault.

    An error is what training stops at, misreads, or leaves out without a word, or what makes a score untrue. A warning is
    something that can be meant, and is worth a look.
    """

    MISSING_FOLDER = (
        "error",
        "a folder of the entry is missing",
        "set data.root to the folder that holds the dataset, or correct the entry's folder, images and labels",
    )
    EMPTY_FOLDER = ("error", "no image matches the entry's pattern", "unpack the archive there, or correct the entry's images")
    NO_PERMISSION = ("error", "may not be read", "give the user who trains read permission, and execute permission on folders")
    DANGLING_LINK = ("error", "link to something that is not there", "fetch what the link points to, or remove the link")
    LINK_LOOP = ("error", "links that lead back to themselves", "remove the link")
    NOT_A_FILE = ("error", "a folder, pipe or device where a file is expected", "rename or remove it")
    EMPTY_FILE = ("error", "file of no bytes", "fetch it again")
    NOT_AN_IMAGE = ("error", "no image format that is known", "fetch it again, or remove it")
    DAMAGED = ("error", "truncated or damaged", "fetch it again")
    TOO_LARGE = ("error", "more pixels than may be decoded", "cut it into tiles")
    IMAGE_MODE = ("error", "image that is not 8-bit colour (CMYK included) or grey", "convert it to 8-bit RGB")
    LABEL_MODE = ("error", "label that is not of its encoding's form", "convert it, or correct the entry's encoding")
    LOSSY_LABEL = ("error", "label compressed with loss, which blurs ids", "fetch the label as PNG; JPEG labels are of no use")
    MISSING_LABEL = ("error", "image without label", "fetch the label, or remove the image or its line in the list file")
    MISNAMED_LABEL = ("error", "label under another name than expected", "rename it, or correct the entry's labels")
    LEFT_OUT = ("error", "image that the entry's pattern leaves out", "rename it, or correct the entry's images")
    ODD_NAME = ("error", "file name that lists and indexes cannot hold", "rename it in printable UTF-8")
    SIZE = (
        "error",
        "image and label differ in size",
        "fetch both again; where the archive has the fault (GTA5: 15188, 17705), leave the pair out",
    )
    UNKNOWN_IDS = ("error", "label ids outside the encoding", "correct the entry's encoding, or the label")
    LABEL_NAMES = ("error", "the file that explains the ids does not fit", "fetch it with the dataset, of the declared version")
    LIST_UNREADABLE = ("error", "list file that cannot be read", "put it there as UTF-8 text, one image stem a line")
    LIST_ABSENT = ("error", "list file names an image that is not there", "fetch the image, or remove the line")
    LIST_AMBIGUOUS = ("error", "line of a list file that means several images", "write the path below the dataset's folder")
    CONFLICTING_LABELS = ("error", "the same image with different labels", "keep the right one")
    LEAK = ("error", "image of a target that is also learnt from", "remove it from the domain that is learnt from")
    CHECK_FAILED = ("error", "could not be checked", "look at the file; if it is sound, report this as a fault of gkd")
    STRAY_LABEL = ("warning", "label without image", "fetch the image, if it is meant to be there")
    SAME_BUT_CASE = ("warning", "names that only case or accents' form tell apart", "rename one: other systems see one file")
    DUPLICATE = ("warning", "the same image more than once in a split", "keep one")
    SHARED = ("warning", "the same image in two domains", "remove one, unless the overlap is meant")
    EXIF_ROTATION = (
        "warning",
        "image that viewers turn and training does not",
        "turn the pixels and drop the tag, if labels were drawn on the turned view",
    )
    EMPTY_LABEL = ("warning", "label that is ignored as a whole", "check that it is the right file; nothing is learnt from it")
    UNSEEN_CLASS = ("warning", "class that no label has", "check the encoding; the class's score on this split has no meaning")
    COUNT = ("warning", "not as many images as stated", "fetch the rest, unless a part is meant")
    LIST_REPEAT = ("warning", "list file names an image twice", "remove one line: the image counts once")
    TINY = ("warning", "image of a few pixels", "check that it is the right file")  # fmt: skip

    def __init__(self, severity: Severity, title: str, remedy: str) -> None:
        self.severity: Severity = severity
        self.title = title
        self.remedy = remedy

    @property
    def label(self) -> str:
        """Its name as printed: `missing-label`."""
        return self.name.lower().replace("_", "-")


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong: where, and what exactly. `domain` is a `dataset/split`."""

    domain: str
    kind: Kind
    path: Path
    detail: str


@dataclass(frozen=True)
class Report:
    """All faults of one check. `counts` has, for each domain checked, how many images and labels were read."""

    root: Path
    counts: dict[str, tuple[int, int]]
    faults: tuple[Fault, ...]

    def count(self, severity: Severity) -> int:
        """How many faults are of this severity."""
        return sum(fault.kind.severity == severity for fault in self.faults)

    def lines(self) -> Iterator[str]:
        """The report as text: domain by domain, kind by kind, errors first, each with its first examples and what to do."""
        groups: dict[str, dict[Kind, list[Fault]]] = {domain: defaultdict(list) for domain in self.counts}
        for fault in self.faults:
            groups[fault.domain][fault.kind].append(fault)
        for domain, kinds in groups.items():
            yield self._head(domain, kinds)
            for kind in (kind for kind in Kind if kind in kinds):
                yield f"  {kind.severity} {kind.label} ({len(kinds[kind])}): {kind.title}"
                for fault in kinds[kind][:EXAMPLES]:
                    yield f"    {printable(self.place(fault.path))}: {printable(fault.detail)}"
                if len(kinds[kind]) > EXAMPLES:
                    yield f"    and {len(kinds[kind]) - EXAMPLES} more"
                yield f"    to do: {kind.remedy}"
        images = sum(images for images, _ in self.counts.values())
        labels = sum(labels for _, labels in self.counts.values())
        yield f"{_many(len(self.counts), 'domain')}, {_many(images, 'image')}, {_many(labels, 'label')}: {self._verdict()}"

    def write(self, path: Path) -> None:
        """Write all faults as JSON: `{root, domains: {name: {images, labels}}, findings: [{domain, kind, …}]}`."""
        tree = {
            "root": printable(str(self.root)),
            "domains": {domain: {"images": images, "labels": labels} for domain, (images, labels) in self.counts.items()},
            "findings": [
                {
                    "domain": fault.domain,
                    "severity": fault.kind.severity,
                    "kind": fault.kind.label,
                    "path": printable(self.place(fault.path)),
                    "detail": printable(fault.detail),
                }
                for fault in self.faults
            ],
        }
        with atomic_file(path) as temporary:
            temporary.write_text(json.dumps(tree, indent=1) + "\n", encoding="utf-8")

    def place(self, path: Path) -> str:
        """A path below the data root where it lies there, else as it is."""
        return path.relative_to(self.root).as_posix() if path.is_relative_to(self.root) else str(path)

    def _head(self, domain: str, kinds: dict[Kind, list[Fault]]) -> str:
        images, labels = self.counts[domain]
        own = Report(self.root, {}, tuple(fault for group in kinds.values() for fault in group))
        return f"{domain}: {_many(images, 'image')}, {_many(labels, 'label')}, {own._verdict()}"

    def _verdict(self) -> str:
        errors, warnings = self.count("error"), self.count("warning")
        return f"{_many(errors, 'error')}, {_many(warnings, 'warning')}" if errors or warnings else "no finding"


def printable(text: str) -> str:
    r"""`text` on one line of plain UTF-8: control characters and bytes that are no UTF-8 as escapes such as `\n` and `\xff`."""
    return "".join(_escape(char) if unicodedata.category(char) in ("Cc", "Cf", "Cs", "Zl", "Zp") else char for char in text)


def _escape(char: str) -> str:
    # Python keeps a byte of a file name that is no UTF-8 as a surrogate from U+DC80 on.
    return f"\\x{ord(char) - 0xDC00:02x}" if 0xDC80 <= ord(char) <= 0xDCFF else char.encode("unicode_escape").decode()


def _many(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
