"""Untrusted text in messages: bounded, on one line, without control characters, without passwords."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence

LONGEST_SHOWN = 200  # characters of foreign text in a message
LONGEST_VALUE = 80
LONGEST_MASKED = 4096
FEW_ITEMS = 8

_SECRET = (
    r"(?:password|passwd|passphrase|pwd|secret|token|apikey|(?:api|access|private|secret|account|signing)[_-]?key"
    r"|signature|sig|credentials?|sessionid|auth[_-]?string)\d*"
)
# A password may hold anything but a space, as who wrote the address may not have escaped it. What begins as a port is none:
# http://host:5000/models/x@champion.
_PASSWORD = re.compile(
    r"(?P<before>[A-Za-z][A-Za-z0-9+.-]*://[^\s/?#:'\"]*):(?!\d{1,5}(?:[/?#,;\s'\")\]}]|$))"
    r"(?:(?!://)[^\s'\"])*(?=@)"
)
# A name alone before the host of a web address is a key (https://ghp_…@github.com).
_KEY = re.compile(r"(?P<before>(?i:https?|s3|git\+https?)://)[^\s/?#@:'\"]+(?=@)")
# In what follows ?, & or a space, as in addresses, in variables and in the settings of a connection: password=…,
# X-Amz-Signature=…; and in what a library prints of a group of keys: 'password': '…'.
_PARAMETER = re.compile(
    rf"(?P<before>(?:^|[\s?&;,'\"(\[{{\\])[\w.-]*{_SECRET}(?:\s?=\s?|\\?['\"]\s*:\s*)|\bX-[\w-]*(?:key|token):\s*)"
    r"(?!\*\*\*|null\b|None\b|true\b|false\b|['\"]{2})(?:\\?'[^']*'|\\?\"[^\"]*\"|[^\s&;,'\"#)}\]]+)",
    re.IGNORECASE,
)
_BEARER = re.compile(r"(?P<before>\b(?:Bearer|Basic)\s)[A-Za-z0-9+/._~=-]{8,}", re.IGNORECASE)


def shown(text: str, longest: int = LONGEST_SHOWN) -> str:
    """Foreign text as a message may print it: shortened, and what a terminal would not show as itself is escaped."""
    # Cut before it is escaped too: what was given may have any size.
    escaped = "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in text[: longest + 1]
    )
    return escaped if len(escaped) <= longest else f"{escaped[: longest - 1]}…"


def given_value(value: object, longest: int = LONGEST_VALUE) -> str:
    """A value that a person or a file gave, as a message repeats it."""
    if isinstance(value, dict):
        return "a group of keys"
    if isinstance(value, list | tuple | set | frozenset) and len(value) > FEW_ITEMS:
        return f"a list of {len(value)} items"
    if isinstance(value, str):
        # Masked before it is cut and escaped: half an address is not known for one.
        text = shown(repr(without_passwords(value[:LONGEST_MASKED])), longest)
        return text if len(value) <= longest else f"{text} ({len(value)} characters)"
    if isinstance(value, bytes) and len(value) > longest:
        return f"{shown(without_passwords(repr(value[:longest])), longest)} ({len(value)} characters)"
    return shown(without_passwords(_repr(value)), longest)


def without_passwords(text: str) -> str:
    """Text with *** in the place of passwords and keys: in addresses `scheme://user:password@host`, in their parameters."""
    if "://" in text:
        text = _KEY.sub(r"\g<before>***", _PASSWORD.sub(r"\g<before>:***", text))
    return _BEARER.sub(r"\g<before>***", _PARAMETER.sub(r"\g<before>***", text) if "=" in text or ":" in text else text)


def last_words(error: object, longest: int = LONGEST_SHOWN) -> str:
    """As `one_line`, of an error that says what happened at its end, as a remote traceback does."""
    return one_line(" ".join(without_passwords(str(error)).split())[-longest:], longest)


def one_line(error: object, longest: int = LONGEST_SHOWN) -> str:
    """An error of a library as part of a message of ours: one line, bounded, without passwords or control characters."""
    return shown(" ".join(without_passwords(str(error)).split()), longest)


def _repr(value: object) -> str:
    try:
        return repr(value)
    except ValueError:  # of a whole number with more digits than Python writes
        return f"a whole number of {value.bit_length()} bits" if isinstance(value, int) else f"a {type(value).__name__}"


def did_you_mean(word: str, known: Sequence[str]) -> str:
    """The end of a message about an unknown word: the known one that looks most like it; empty where none does."""
    close = difflib.get_close_matches(word, known, n=1)
    return f"; did you mean '{close[0]}'?" if close else ""
