"""Writing that leaves the old content or the new, and nothing beside it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from gkd_core.files import atomic_file, atomic_folder


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_appears_whole_and_readable_for_others(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "a.txt"
    before = os.umask(0o022)
    try:
        with atomic_file(path) as temporary:
            temporary.write_text("half")
            assert not path.exists()
            assert temporary.suffix == path.suffix
            temporary.write_text("whole")
    finally:
        os.umask(before)
    assert path.read_text() == "whole"
    assert path.stat().st_mode & 0o777 == 0o644
    assert names(path.parent) == ["a.txt"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_error_leaves_the_old_file_and_no_other(tmp_path: Path, error: type[BaseException]) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(error), atomic_file(path) as temporary:
        temporary.write_text("half")
        raise error
    assert path.read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


def test_a_folder_takes_the_place_of_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "out"
    for content in ("first", "second"):
        with atomic_folder(path) as temporary:
            (temporary / content).write_text(content)
            assert content not in (names(path) if path.exists() else [])
        assert names(path) == [content]
    assert names(tmp_path) == ["out"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_error_leaves_the_old_folder_and_no_other(tmp_path: Path, error: type[BaseException]) -> None:
    path = tmp_path / "out"
    path.mkdir()
    (path / "old").touch()
    with pytest.raises(error), atomic_folder(path) as temporary:
        (temporary / "new").touch()
        raise error
    assert names(path) == ["old"]
    assert names(tmp_path) == ["out"]
