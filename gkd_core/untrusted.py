"""Checks of untrusted input: names, digests and paths in data, and text that a message repeats."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path
from typing import Annotated

from pydantic import Field

from gkd_core.errors import DataError
from gkd_core.messages import one_line, shown

LONGEST_NAME = 255  # bytes of one file name, on every file system that we know
LONGEST_PATH = 1024  # bytes of a relative path; S3 allows a key no more

PLAIN_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+-]*")
PlainName = Annotated[str, Field(pattern=rf"^{PLAIN_NAME.pattern}$", max_length=200)]
"""One file or folder name that means the same in a path, a shell, YAML and a URL: no separator, no leading dot or dash."""
LABEL = re.compile(r"\w[\w .,:()&/+#-]*")
Label = Annotated[str, Field(pattern=rf"^{LABEL.pattern}$", max_length=200)]
"""What a class, a domain or a title is called in tables, pages and figures: no markup, no formula, no control character."""
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
"""A SHA-256 in lower-case hexadecimal."""


def objection_to(path: str) -> str | None:
    """Why text is not a relative path of plain names, on any system; None where it is one."""
    if not path:
        return "it is empty"
    try:
        size = len(path.encode())
    except UnicodeEncodeError:
        return "it holds half a character (a lone surrogate)"
    if size > LONGEST_PATH:
        return f"it has {size} bytes, more than {LONGEST_PATH}"
    for part in path.split("/"):
        if part in ("", ".", ".."):
            return f"it has a segment {part!r}"
        if len(part.encode()) > LONGEST_NAME:
            return f"it has a segment of more than {LONGEST_NAME} bytes"
    if "\\" in path or any(ord(char) < 32 or 127 <= ord(char) < 160 for char in path):
        return "it holds a backslash or a control character"
    return None


def given_path(path: str | Path) -> Path:
    """The absolute path of a file or folder that a person names; it need not be there.

    Raises:
        DataError: no file can be called so, or its links lead in a circle.
    """
    try:
        os.fspath(path).encode()
        return Path(path).expanduser().resolve()
    except UnicodeEncodeError:
        reason = "it is no UTF-8"
    except (ValueError, RuntimeError, OSError) as error:  # a zero byte; `~` of nobody, a circle of links; a name too long
        reason = one_line(error)
    raise DataError(f"{shown(str(path))!r}: no path of a file or folder ({reason}); expected one that can be")


def safe_join(root: Path, path: str) -> Path:
    """The place below `root` that a relative path from data names. No folder on the way may be a link, which could lead out.

    Nothing is made. The last part may be a link: who writes there renames a new file over it.

    Raises:
        DataError: the path is absolute, leads out of `root`, or is not one that every system takes; a folder on its way is
            a link or a file.
    """
    reason = objection_to(path)
    if reason:
        raise DataError(f"{shown(path)!r}: {reason}; expected a relative path below {root}")
    *folders, name = path.split("/")
    folder = root
    for part in folders:
        folder = folder / part
        try:
            kind = folder.lstat().st_mode
        except FileNotFoundError:
            continue
        if not stat.S_ISDIR(kind):
            raise DataError(f"{folder}: a link or a file stands where {shown(path)!r} needs a folder; choose another target")
    return folder / name
