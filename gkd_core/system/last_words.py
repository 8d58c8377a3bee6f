"""What a command of ours said when it failed, for the program that started it: who reads that one's log sees no terminal.

The program names a file by a variable; a command line of ours writes its error there too.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from gkd_core.messages import one_line

VARIABLE = "GKD_LAST_WORDS"
LONGEST = 2000


class LastWords:
    """A file for the last words of a command; those of an earlier one are forgotten."""

    def __init__(self, file: Path) -> None:
        self._file = file
        file.parent.mkdir(parents=True, exist_ok=True)
        file.unlink(missing_ok=True)

    @property
    def environment(self) -> dict[str, str]:
        """The variable that the command is to be given."""
        return {VARIABLE: str(self._file)}

    def read(self) -> str | None:
        """What the command said, on one line; None where it was killed, or was none of ours."""
        try:
            with self._file.open(encoding="utf-8", errors="replace") as file:
                return one_line(file.read(LONGEST), LONGEST) or None
        except FileNotFoundError:
            return None


def leave_last_words(lines: Sequence[str]) -> None:
    """Write what this command has just said of its failure to the file that the variable names, where it does."""
    if not (name := os.environ.get(VARIABLE)):
        return
    try:
        Path(name).write_text("\n".join(lines), encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        print(f"gkd: {one_line(error)}; who started this command is not told why it failed", file=sys.stderr)
