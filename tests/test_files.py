"""Writing that leaves the old content or the new, and nothing beside it."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from gkd_core import files
from gkd_core.files import (
    atomic_file,
    atomic_folder,
    is_temporary,
    new_folder,
    private_file,
    scratch_folder,
    settle,
    sweep,
    sweep_beside,
)


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


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """What the disk is asked to keep, and what is renamed, in order: ("sync" or "rename", name)."""
    asked: list[tuple[str, str]] = []
    fsync, replace = os.fsync, os.replace

    def synced(descriptor: int) -> None:
        asked.append(("sync", Path(os.readlink(f"/proc/self/fd/{descriptor}")).name))
        fsync(descriptor)

    def renamed(source: Path, target: Path) -> None:
        asked.append(("rename", Path(target).name))
        replace(source, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", renamed)
    return asked


def test_a_file_is_on_the_disk_before_its_name_is_and_then_its_name(tmp_path: Path, disk: list[tuple[str, str]]) -> None:
    with atomic_file(tmp_path / "new" / "a.txt") as temporary:
        temporary.write_text("whole")
    assert disk == [("sync", tmp_path.name), ("sync", temporary.name), ("rename", "a.txt"), ("sync", "new")]


def test_all_of_a_folder_is_on_the_disk_before_its_name_is(tmp_path: Path, disk: list[tuple[str, str]]) -> None:
    with atomic_folder(tmp_path / "out") as temporary:
        (temporary / "deep").mkdir()
        (temporary / "deep" / "a").write_text("a")
        (temporary / "b").write_text("b")
        (temporary / "link").symlink_to("nowhere")
    *contents, rename, last = disk
    assert sorted(name for _, name in contents) == sorted(["a", "deep", "b", temporary.name])
    assert (rename, last) == (("rename", "out"), ("sync", tmp_path.name))


def test_what_is_renamed_from_elsewhere_is_kept_in_both_folders(tmp_path: Path, disk: list[tuple[str, str]]) -> None:
    (tmp_path / "from").mkdir()
    (tmp_path / "to").mkdir()
    (tmp_path / "from" / "a").write_text("a")
    settle(tmp_path / "from" / "a", tmp_path / "to" / "b")
    assert disk == [("sync", "a"), ("rename", "b"), ("sync", "to"), ("sync", "from")]


@pytest.mark.parametrize("which", ["fsync", "replace"])
def test_a_disk_that_fails_leaves_the_old_file_and_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, which: str) -> None:
    def fail(*arguments: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    (tmp_path / "a.txt").write_text("old")
    monkeypatch.setattr(os, which, fail)
    with pytest.raises(OSError, match="Input/output error"), atomic_file(tmp_path / "a.txt") as temporary:
        temporary.write_text("new")
    with pytest.raises(OSError, match="Input/output error"), atomic_folder(tmp_path / "out"):
        pass
    assert names(tmp_path) == ["a.txt"]
    assert (tmp_path / "a.txt").read_text() == "old"


def test_a_file_system_that_cannot_sync_a_folder_is_written_to_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fsync = os.fsync

    def files_only(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "Invalid argument")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", files_only)
    with atomic_file(tmp_path / "a.txt") as temporary:
        temporary.write_text("new")
    assert names(tmp_path) == ["a.txt"]


def test_a_secret_is_its_owners_alone_while_it_is_written_and_afterwards(tmp_path: Path) -> None:
    path = tmp_path / "key"
    for text in ("first", "second"):
        with private_file(path) as temporary:
            assert temporary.stat().st_mode & 0o777 == 0o600
            temporary.write_text(text)
        assert path.stat().st_mode & 0o777 == 0o600 and path.read_text() == text
    with pytest.raises(RuntimeError), private_file(path):
        raise RuntimeError
    assert path.read_text() == "second" and [each.name for each in tmp_path.iterdir()] == ["key"]


@pytest.mark.parametrize("name", ["training.pt", "a", ".hidden", "a.tar.gz", "ä" * 120 + ".png", "x" * 255, "a." + "s" * 100])
def test_names_of_temporary_files_are_known_and_short_enough(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="stop"), atomic_file(tmp_path / name) as temporary:
        assert is_temporary(temporary.name) and len(temporary.name.encode()) <= 255
        left = tmp_path / temporary.name
        raise ValueError("stop")
    left.write_text("as a killed process leaves it")
    (tmp_path / "other").mkdir()
    assert sweep_beside(tmp_path / "unrelated") == []
    with atomic_file(tmp_path / name) as temporary:
        assert not left.exists()  # the next to write the same sweeps
    assert names(tmp_path) == sorted([name, "other"])


@pytest.mark.parametrize(
    "name", ["a.gkd-0123456789ab", ".a.gkd-0123", ".a.gkd-0123456789ab.b", ".gkd-0123456789ab", "a", ".a.tmp"]
)
def test_other_names_are_not_ours(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    assert not is_temporary(name)
    assert sweep(tmp_path) == []


def test_sweeping_removes_what_nobody_holds_and_no_link(tmp_path: Path) -> None:
    deep = tmp_path / "deep"
    deep.mkdir()
    held, left, folder, link = (deep / f".a.gkd-00000000000{number}" for number in range(4))
    held.touch()
    left.touch()
    folder.mkdir()
    (folder / "inside").touch()
    (tmp_path / "precious").touch()
    link.symlink_to(tmp_path / "precious")
    with held.open() as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        assert sorted(sweep(tmp_path)) == [left, folder]
    assert sweep(tmp_path) == [held]
    assert link.is_symlink() and (tmp_path / "precious").exists()


def test_a_temporary_that_is_written_as_a_file_of_its_own_stays_locked(tmp_path: Path) -> None:
    with atomic_file(tmp_path / "a.txt") as outer:
        with atomic_file(outer) as inner:
            inner.write_text("whole")
        assert sweep(tmp_path) == []
    assert (tmp_path / "a.txt").read_text() == "whole"


def test_a_sweeper_that_comes_first_costs_the_writer_no_more_than_another_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make, made = files._new_file, []

    def swept_at_once(path: Path) -> int:
        descriptor = make(path)
        made.append(path)
        if len(made) == 1:
            path.unlink()
        return descriptor

    monkeypatch.setattr(files, "_new_file", swept_at_once)
    with atomic_file(tmp_path / "a.txt") as temporary:
        assert temporary == made[1]
        temporary.write_text("whole")
    assert names(tmp_path) == ["a.txt"]


def test_folders_that_are_written_at_once_by_many_are_each_whole(tmp_path: Path) -> None:
    def write(number: int) -> None:
        with atomic_folder(tmp_path / "out") as temporary:
            for part in range(5):
                (temporary / str(part)).write_text(str(number))

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(write, range(200)))
    assert names(tmp_path) == ["out"]
    assert len(names(tmp_path / "out")) == 5
    assert len({path.read_text() for path in (tmp_path / "out").iterdir()}) == 1


def test_scratch_folders_are_private_and_those_of_killed_processes_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files.tempfile, "tempdir", str(tmp_path))
    with scratch_folder("dump") as living:
        left = living.with_name(".gkd-dump.gkd-0123456789ab")
        left.mkdir()
        other = living.with_name(".gkd-other.gkd-0123456789ab")
        other.mkdir()
        with scratch_folder("dump") as second:
            assert living.stat().st_mode & 0o777 == 0o700
            assert names(tmp_path) == sorted([living.name, second.name, other.name])
    assert names(tmp_path) == [other.name]


@pytest.mark.parametrize("there", ["nothing", "an empty folder", "a file", "a folder with a file"])
def test_a_new_folder_takes_the_place_of_nothing(tmp_path: Path, there: str) -> None:
    target = tmp_path / "out"
    if "folder" in there:
        target.mkdir()
    mine = target / "mine" if there == "a folder with a file" else target
    if there.endswith("file"):
        mine.write_text("mine")
        with pytest.raises(OSError, match=r"Not a directory|not empty"), new_folder(target) as temporary:
            (temporary / "ours").touch()
        assert mine.read_text() == "mine"
    else:
        with new_folder(target) as temporary:
            (temporary / "ours").touch()
        assert [path.name for path in target.iterdir()] == ["ours"]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
