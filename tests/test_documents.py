"""Files of YAML and JSON: what is no file, no text or too large is said, with its line where there is one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import yaml
from hypothesis import example, given, strategies

from gkd_core.documents import DocumentError, dump_yaml, parse_json, parse_yaml, read_small, read_text, read_yaml


def test_a_key_that_stands_twice_is_named_with_both_lines() -> None:
    with pytest.raises(DocumentError, match=r"^line 3: 'cars' stands here a second time, after line 1$"):
        parse_yaml("cars: 1\nroad: 2\ncars: 3\n")


def test_a_merged_key_may_be_overridden() -> None:
    assert parse_yaml("a: &a {b: 1, c: 2}\nd: {<<: *a, b: 3}") == {"a": {"b": 1, "c": 2}, "d": {"b": 3, "c": 2}}


def test_json_names_the_key_that_is_given_twice() -> None:
    with pytest.raises(DocumentError, match="'a' is given twice"):
        parse_json('{"a": 1, "a": 2}')


def test_text_of_another_encoding_is_named_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_bytes("a: 1\nb: stra\u00dfe\n".encode("latin-1"))
    with pytest.raises(DocumentError, match=r"^line 2: not UTF-8 \(byte 0xdf\); save it as UTF-8$"):
        read_yaml(tmp_path / "a.yaml")


def test_a_folder_and_a_pipe_are_no_files(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")  # a reader would wait for it without end
    for path, kind in ((tmp_path, "a folder"), (tmp_path / "pipe", "a pipe")):
        with pytest.raises(DocumentError, match=kind):
            read_small(path)


def test_a_large_file_is_read_no_further_than_its_bound(tmp_path: Path) -> None:
    with (tmp_path / "large").open("wb") as stream:
        stream.truncate(2**40)  # sparse: it takes no space, and reading it whole would take all memory
    with pytest.raises(DocumentError, match="more than 100 bytes"):
        read_text(tmp_path / "large", 100)


def test_an_absent_file_is_the_callers_to_explain(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_yaml(tmp_path / "none.yaml")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("010", 10), ("0o10", 8), ("0x1F", 31), ("+7", 7), ("-08", -8), ("1:30", "1:30"), ("1_000", "1_000"), ("0b1", "0b1"),
        ("5e-5", 5e-5), ("1.", 1.0), (".5", 0.5), ("-.inf", float("-inf")), ("1e3", 1000.0), ("12:30:45.5", "12:30:45.5"),
        ("no", "no"), ("on", "on"), ("y", "y"), ("True", True), ("FALSE", False), ("tRue", "tRue"),
        ("~", None), ("Null", None), ("", None), ("nUll", "nUll"), ("2026-11-29", "2026-11-29"), ("=", "="), ("0o8", "0o8"),
    ],
)  # fmt: skip
def test_scalars_are_those_of_yaml_1_2(text: str, value: object) -> None:
    """As its specification has them (core schema, 10.3.2), and as DVC reads the same files."""
    found = parse_yaml(f"key: {text}\n")["key"]
    assert (found, type(found)) == (value, type(value))


TEXTS = strategies.text(strategies.characters(exclude_categories=["Cs"], exclude_characters="\0"))
LIKE_NUMBERS = strategies.from_regex(r"[-+.~0-9a-fA-Fxoeinyul:_]{1,8}", fullmatch=True)
SCALARS = strategies.none() | strategies.booleans() | strategies.integers() | strategies.floats(allow_nan=False)


def _groups(inner: strategies.SearchStrategy[object]) -> strategies.SearchStrategy[object]:
    return strategies.lists(inner, max_size=3) | strategies.dictionaries(LIKE_NUMBERS, inner, max_size=3)


@given(strategies.recursive(SCALARS | TEXTS | LIKE_NUMBERS, _groups))
@example("\x85")
@example({"a": ["\u2028", "line\x85line\n", "\ufeff", "\r\n", " \u2029 "]})
def test_what_is_written_is_read_back_by_both_versions(tree: object) -> None:
    text = dump_yaml(tree)
    assert parse_yaml(text) == tree
    assert yaml.safe_load(text) == tree
