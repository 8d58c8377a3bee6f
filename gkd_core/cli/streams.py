"""Safe output: control characters in data are escaped, and no password reaches the screen or a log."""

from __future__ import annotations

import io
import logging
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO

from gkd_core.messages import without_passwords

# Control characters but for tab and ends of lines, halves of characters, and marks that turn the direction of what follows.
# A return of the cursor in the middle of what is written, too: what follows would be drawn over it.
_UNSEEN = re.compile(
    "(?<!^)\r(?!\n|\\Z)"
    "|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)
# What our tables and bars of progress send: colours, moves of the cursor, lines wiped. Not: titles, the clipboard, queries.
_STYLES = re.compile(r"\x1b\[(?:[0-9;]*[mABCDGHJK]|\?25[lh])")


def printable(text: str, styles: bool = False) -> str:
    """Text with its control characters escaped; with `styles`, those that only draw stay."""
    if not styles:
        return _UNSEEN.sub(lambda found: found.group().encode("unicode_escape").decode("ascii"), text)
    parts, last = [], 0
    for found in _STYLES.finditer(text):
        parts += [printable(text[last : found.start()]), found.group()]
        last = found.end()
    return "".join([*parts, printable(text[last:])])


class PrintableStream(io.TextIOBase):
    """A stream for text that writes to another one what may be printed there."""

    def __init__(self, stream: TextIO, masked: bool) -> None:
        self._stream = stream
        self._masked = masked

    def write(self, text: str) -> int:
        text_ = without_passwords(text) if self._masked else text
        text_ = printable(text_, styles=self._stream.isatty())
        encoding = self._stream.encoding or "utf-8"
        self._stream.write(text_.encode(encoding, "backslashreplace").decode(encoding))
        return len(text)

    def writable(self) -> bool:
        return True

    def isatty(self) -> bool:
        return self._stream.isatty()

    def fileno(self) -> int:
        return self._stream.fileno()

    def flush(self) -> None:
        self._stream.flush()

    def close(self) -> None:
        """It is not ours to close."""

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self._stream.encoding

    @property
    def errors(self) -> str | None:  # type: ignore[override]
        return self._stream.errors

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class MaskedRecord(logging.LogRecord):
    """A line of a log in which addresses have no passwords, whoever writes it."""

    def getMessage(self) -> str:  # noqa: N802 (the name of logging)
        return without_passwords(super().getMessage())


@contextmanager
def guarded_output() -> Iterator[None]:
    """While the block runs, what this process prints and logs passes here. Settings printed to be kept stay as they are:
    passwords are masked in errors and logs, not in what a command was asked for.
    """
    out, err, factory = sys.stdout, sys.stderr, logging.getLogRecordFactory()
    sys.stdout, sys.stderr = PrintableStream(out, masked=False), PrintableStream(err, masked=True)
    logging.setLogRecordFactory(MaskedRecord)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = out, err
        logging.setLogRecordFactory(factory)
