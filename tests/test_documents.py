"""Files of YAML and JSON: what is no file, no text or too large is said, with its line where there is one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from gkd_core.documents import DocumentError, parse_json, parse_yaml, read_small, read_text, read_yaml


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
