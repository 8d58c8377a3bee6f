"""The kinds of findings: what each means, how grave it is, and what to do about it."""

from __future__ import annotations

from enum import Enum
from typing import Literal

Severity = Literal["error", "warning"]


class Kind(Enum):
    """One kind of finding.

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
    IMAGE_MODE = ("error", "image that is not 8-bit colour or grey", "convert it to 8-bit RGB")
    LABEL_MODE = ("error", "label that is not of its encoding's form", "convert it, or correct the entry's encoding")
    LOSSY_LABEL = ("error", "label compressed with loss, which blurs ids", "fetch the label as PNG; JPEG labels are of no use")
    MISSING_LABEL = ("error", "image without label", "fetch the label, or remove the image or its line in the list file")
    MISNAMED_LABEL = ("error", "label under another name than expected", "rename it, or correct the entry's labels")
    LEFT_OUT = ("error", "image that the entry's pattern leaves out", "rename it, or correct the entry's images")
    ODD_NAME = ("error", "file name that lists and indexes cannot hold", "rename it in printable UTF-8")
    SIZE = ("error", "image and label differ in size", "fetch both again; resize neither by guess")
    UNKNOWN_IDS = ("error", "label ids outside the encoding", "correct the entry's encoding, or the label")
    LABEL_NAMES = ("error", "the file that explains the ids does not fit", "fetch it with the dataset, of the declared version")
    LIST_UNREADABLE = ("error", "list file that cannot be read", "put it there as UTF-8 text, one image stem a line")
    LIST_ABSENT = ("error", "list file names an image that is not there", "fetch the image, or remove the line")
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
    LIST_AMBIGUOUS = ("warning", "line of a list file that means several images", "write the path instead of the stem")
    TINY = ("warning", "image of a few pixels", "check that it is the right file")  # fmt: skip

    def __init__(self, severity: Severity, title: str, remedy: str) -> None:
        self.severity: Severity = severity
        self.title = title
        self.remedy = remedy

    @property
    def label(self) -> str:
        """Its name as printed: `missing-label`."""
        return self.name.lower().replace("_", "-")
