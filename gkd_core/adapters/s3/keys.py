"""Names in a bucket, and the paths they may become here. A key is whatever somebody wrote there: it is treated as hostile."""

from __future__ import annotations

import re
import stat
from dataclasses import dataclass
from pathlib import Path

from gkd_core.errors import DataError

SCHEME = "s3://"
BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
LONGEST_NAME = 255  # bytes of one file name, on every file system that we know
LONGEST_KEY = 1024  # bytes of a key, by S3's own rule


@dataclass(frozen=True)
class Location:
    """An object, or all objects whose keys begin with `key` and a slash (all of the bucket's where it is empty)."""

    bucket: str
    key: str = ""

    @classmethod
    def parse(cls, address: str) -> Location:
        """The place that `s3://bucket/key` names; a slash at its end says nothing.

        Raises:
            DataError: the address has another form, or no bucket can have that name.
        """
        bucket, _, key = address.removeprefix(SCHEME).partition("/")
        if not address.startswith(SCHEME):
            raise DataError(f"{shown(address)}: expected s3://bucket/prefix")
        check_bucket(bucket)
        key = key.rstrip("/")
        if key:
            segments(key)
        return cls(bucket, key)

    def __truediv__(self, name: str) -> Location:
        return Location(self.bucket, f"{self.key}/{name}" if self.key else name)

    def __str__(self) -> str:
        return f"{SCHEME}{self.bucket}/{shown(self.key)}" if self.key else f"{SCHEME}{self.bucket}"


def check_bucket(name: str) -> None:
    """Raise `DataError` where no bucket can have this name."""
    if not BUCKET.fullmatch(name) or ".." in name:
        raise DataError(
            f"{shown(name) or 'an empty name'}: no name of a bucket; expected 3 to 63 small letters, digits, '-' and '.'"
        )


def segments(key: str) -> tuple[str, ...]:
    """The names of a key's folders and file, where each is one that a file may have on any system.

    Raises:
        DataError: the key is empty, too long, absolute, or has a segment that is empty, `.`, `..`, too long, or holds a
            backslash, a control character or half a character.
    """
    reason = _objection(key)
    if reason:
        raise DataError(f"key {shown(key)!r}: {reason}; it would not be a file below the target, rename the object")
    return tuple(key.split("/"))


def target_file(root: Path, key: str) -> Path:
    """The file below `root` that stands for a key (relative to the prefix that `root` stands for); its folders are made.

    Every folder on the way is a real one: a symbolic link would lead out of `root`. The file itself may be one, as who
    writes it renames a new file over it.

    Raises:
        DataError: `segments` refuses the key; or a folder on its way is a link or a file.
    """
    *folders, name = segments(key)
    folder = root
    folder.mkdir(parents=True, exist_ok=True)
    for part in folders:
        folder = folder / part
        try:
            folder.mkdir()
        except FileExistsError:
            if not stat.S_ISDIR(folder.lstat().st_mode):
                raise DataError(
                    f"{folder}: a link or a file stands where key {shown(key)!r} needs a folder; choose another target"
                ) from None
    target = folder / name
    if target.is_dir() and not target.is_symlink():
        raise DataError(f"{target}: a folder stands where key {shown(key)!r} needs a file; choose another target")
    return target


def shown(text: str) -> str:
    """A key as a message may print it: what a terminal would not show as itself is escaped."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in text)


def _objection(key: str) -> str | None:
    if not key:
        return "it is empty"
    try:
        size = len(key.encode())
    except UnicodeEncodeError:
        return "it holds half a character (a lone surrogate)"
    if size > LONGEST_KEY:
        return f"it has {size} bytes, more than {LONGEST_KEY}"
    for part in key.split("/"):
        if part in ("", ".", ".."):
            return f"it has a segment {part!r}"
        if len(part.encode()) > LONGEST_NAME:
            return f"it has a segment of more than {LONGEST_NAME} bytes"
    if "\\" in key or any(ord(char) < 32 or 127 <= ord(char) < 160 for char in key):
        return "it holds a backslash or a control character"
    return None
