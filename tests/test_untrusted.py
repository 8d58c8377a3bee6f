"""What comes from outside: names and paths are refused by name, text is repeated without what could do harm."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gkd_core.errors import DataError
from gkd_core.messages import one_line, shown, without_passwords
from gkd_core.untrusted import PLAIN_NAME, objection_to, safe_join

HOSTILE = ("", "/abs", "..", "a/../b", "a//b", ".", "a\\b", "a\nb", "a\x7fb", "\ud800", "x" * 256, "/".join(["ab"] * 400))


@pytest.mark.parametrize("path", HOSTILE, ids=lambda path: repr(path[:12]))
def test_a_hostile_path_is_refused_by_name(tmp_path: Path, path: str) -> None:
    assert objection_to(path)
    with pytest.raises(DataError, match="expected a relative path below"):
        safe_join(tmp_path, path)


@given(st.text(max_size=60))
def test_what_is_joined_lies_below_the_root(path: str) -> None:
    root = Path("/nowhere/root")
    try:
        joined = safe_join(root, path)
    except DataError:
        return
    assert joined.is_relative_to(root) and joined != root and ".." not in joined.parts


def test_a_link_on_the_way_is_refused(tmp_path: Path) -> None:
    (tmp_path / "out").symlink_to("/tmp")
    with pytest.raises(DataError, match="a link or a file stands where 'out/file' needs a folder"):
        safe_join(tmp_path, "out/file")
    assert safe_join(tmp_path, "in/file") == tmp_path / "in" / "file"


@pytest.mark.parametrize("name", ["-rf", ".hidden", "a b", "g$(id)", "a;b", "a\nb", "ü", "a/b", ""])
def test_no_plain_name(name: str) -> None:
    assert PLAIN_NAME.fullmatch(name) is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("postgresql://me:secret@host:5432/db fails", "postgresql://me:***@host:5432/db fails"),
        ("http://:key@127.0.0.1", "http://:***@127.0.0.1"),
        ("a://u:p@h and b+c://u:p:q@h", "a://u:***@h and b+c://u:***@h"),
        ("http://127.0.0.1:5000/a@b", "http://127.0.0.1:5000/a@b"),
        ("s3://bucket/key", "s3://bucket/key"),
    ],
)
def test_passwords_in_addresses_are_masked(text: str, expected: str) -> None:
    assert without_passwords(text) == expected


def test_an_error_becomes_one_bounded_line() -> None:
    line = one_line(ValueError("first\n  second\x1b[31m http://u:secret@h " + "x" * 1000), 80)
    assert line.startswith("first second\\x1b[31m http://u:***@h x") and len(line) == 80 and line.endswith("…")


@given(st.text())
def test_what_is_shown_is_printable_and_bounded(text: str) -> None:
    assert shown(text).isprintable() and len(shown(text)) <= 200
