"""Notes that only inform: what was spent, how far a stage is, what need not be computed again. None of them may stop a stage.

What is damaged is set aside under another name, with one line that says what is lost by it, and the work goes on.
"""

from __future__ import annotations

import logging
import os
import shutil
import stat
from collections.abc import Callable
from pathlib import Path

from gkd_core.messages import one_line, shown

ASIDE = ".damaged"
LOG = logging.getLogger(__name__)


def set_aside(path: Path, why: object, lost: str) -> None:
    """Rename a damaged note to `<name>.damaged`, over an earlier one, and say so in one line.

    Args:
        why: what is wrong with it.
        lost: what is not known for want of it.
    """
    aside = path.with_name(path.name + ASIDE)
    try:
        remove(aside)
        os.replace(path, aside)
        what = f"set aside as {shown(aside.name)}"
    except OSError as error:
        what = f"left where it is ({one_line(error.strerror or error)})"
    LOG.warning("%s: damaged (%s), %s; %s", shown(str(path)), one_line(why), what, lost)


def clear_file(path: Path, lost: str) -> None:
    """Set aside whatever is at the path of a note's file and cannot be read and written as one."""
    _clear(path, stat.S_ISREG, "no file", os.R_OK | os.W_OK, lost)


def clear_folder(path: Path, lost: str) -> None:
    """Set aside whatever is at the path of a folder of notes and cannot be used as one."""
    _clear(path, stat.S_ISDIR, "no folder", os.R_OK | os.W_OK | os.X_OK, lost)


def is_aside(name: str) -> bool:
    """Whether it is the name of a note that was set aside."""
    return name.endswith(ASIDE)


def remove(path: Path) -> None:
    """Remove a file, a link or a whole folder, where there is one."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _clear(path: Path, is_kind: Callable[[int], bool], not_so: str, access: int, lost: str) -> None:
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        if path.is_symlink():
            set_aside(path, "a link to nowhere", lost)
        return
    except OSError as error:
        set_aside(path, error.strerror or error, lost)
        return
    if not is_kind(mode):
        set_aside(path, not_so, lost)
    elif not os.access(path, access):
        set_aside(path, "may not be read and written", lost)
