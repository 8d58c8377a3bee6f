"""Names in a bucket, and the paths they may become here. A key is whatever somebody wrote there: it is treated as hostile."""

from __future__ import annotations

import re
import stat
from dataclasses import dataclass
from pathlib import Path

from gkd_core.errors import DataError
from gkd_core.messages import shown
from gkd_core.untrusted import objection_to

SCHEME = "s3://"
BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")


@dataclass(frozen=True)
class Location:
    """An object, or all objects whose keys begin with `key` and a slash (all of the bucket's where it is empty)."""

    bucket: str
    key: str = ""

    @classmethod
    def parse(cls, address: str) -> Location:
        """The place that `s3://bucket/key` names; a slash at its end says nothing.

        >>> Location.parse("s3://runs/gkd/") / "demo"
        Location(bucket='runs', key='gkd/demo')

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
    reason = objection_to(key)
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
