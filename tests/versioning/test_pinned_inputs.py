"""Pinned data as a flow has them: fetched where absent, refused where they are not as pinned. On a remote that is a folder."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from gkd_core.errors import DataError, PlatformError
from gkd_core.settings import settings_from_tree
from gkd_core.stages import Recipe
from gkd_core.versioning.pinned_data import data_repo, ensure, pin
from gkd_core.versioning.pinned_inputs import committed_revision, fetch_pinned, pinned_inputs
from gkd_core.versioning.pins import PinnedInputs, read_pin

CONFIG = "[core]\n    no_scm = true\n    analytics = false\n    remote = store\n['remote \"store\"']\n    url = {remote}\n"
FILES = {"images/a.png": "one", "images/b.png": "two", "labels/a.png": "three"}


def write(folder: Path, files: Mapping[str, str]) -> None:
    for name, content in files.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.unlink(missing_ok=True)  # it may be a link into DVC's cache
        file.write_text(content)


def new_project(folder: Path, remote: Path) -> Path:
    (folder / ".dvc").mkdir(parents=True)
    (folder / ".dvc" / "config").write_text(CONFIG.format(remote=remote))
    return folder


@pytest.fixture(scope="module")
def pushed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with `data/yard` pinned, and pushed to the folder `remote` beside it."""
    base = tmp_path_factory.mktemp("pins")
    project = new_project(base / "project", base / "remote")
    write(project / "data" / "yard", FILES)
    with data_repo(project) as repo:
        pin(repo, "data/yard")
        repo.push()
    return project


@pytest.fixture
def clone(pushed: Path, tmp_path: Path) -> Path:
    """Another project with the pin alone, and a copy of the remote."""
    shutil.copytree(pushed.parent / "remote", tmp_path / "remote")
    project = new_project(tmp_path / "clone", tmp_path / "remote")
    (project / "data").mkdir()
    shutil.copy(pushed / "data" / "yard.dvc", project / "data" / "yard.dvc")
    return project


def fetched(project: Path) -> list[str]:
    return [pin.path for pin in ensure(project, [read_pin(project, "data/yard")], lambda *_: None)]


def contents(folder: Path) -> dict[str, str]:
    return {file.relative_to(folder).as_posix(): file.read_text() for file in folder.rglob("*") if file.is_file()}


def objects(project: Path) -> list[Path]:
    return sorted(path for path in (project.parent / "remote" / "files" / "md5").rglob("*") if path.is_file())


def test_a_pin_counts_what_it_pins(pushed: Path) -> None:
    found = read_pin(pushed, "data/yard")
    assert (found.files, found.bytes) == (3, len("onetwothree"))
    assert found.md5.endswith(".dir")


def test_the_program_fetches_what_is_absent_and_says_so(clone: Path, tmp_path: Path) -> None:
    record = tmp_path / "pins.json"
    PinnedInputs(pins=(read_pin(clone, "data/yard"),)).write(record)
    said: list[str] = []
    assert [pin.path for pin in fetch_pinned(clone, record, said.append)] == ["data/yard"]
    assert contents(clone / "data" / "yard") == FILES
    assert said and said[0].startswith("data/yard: fetching, ")
    write(clone / "data" / "yard", {"images/a.png": "other"})
    with pytest.raises(DataError, match=r"^data/yard: differs from its pin data/yard\.dvc: 1 changed \(such as images/a\.png\)"):
        fetch_pinned(clone, record, said.append)


def test_what_is_as_pinned_stays(pushed: Path) -> None:
    assert fetched(pushed) == []


def test_an_empty_folder_is_absent(clone: Path) -> None:
    (clone / "data" / "yard").mkdir()
    assert fetched(clone) == ["data/yard"]


def test_a_part_of_it_is_refused_and_pull_fetches_the_rest(clone: Path) -> None:
    fetched(clone)
    (clone / "data" / "yard" / "images" / "b.png").unlink()
    with pytest.raises(DataError, match=r"only a part of it is here, 1 of 3 files are missing, such as images/b\.png"):
        fetched(clone)
    with data_repo(clone) as repo:
        repo.pull([str(clone / "data" / "yard.dvc")])
    assert fetched(clone) == []


@pytest.mark.parametrize("files", [{"images/b.png": "six"}, {"new.png": "new"}])
def test_changes_are_refused_until_they_are_pinned(clone: Path, files: dict[str, str]) -> None:
    fetched(clone)
    write(clone / "data" / "yard", files)
    with pytest.raises(DataError, match="differs from its pin"):
        fetched(clone)
    before = read_pin(clone, "data/yard")
    with data_repo(clone) as repo:
        assert pin(repo, "data/yard") != before
    assert fetched(clone) == []


def test_a_copy_made_by_hand_is_held_against_the_pin(clone: Path) -> None:
    """Nothing of the pin but its digest is here."""
    write(clone / "data" / "yard", FILES)
    assert fetched(clone) == []
    write(clone / "data" / "yard", {"images/a.png": "other"})
    with pytest.raises(DataError, match="its content is not that of data/yard.dvc"):
        fetched(clone)


def damage_same_size(file: Path) -> None:
    content = file.read_bytes()
    file.chmod(0o644)
    file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))


def truncate(file: Path) -> None:
    file.chmod(0o644)
    file.write_bytes(file.read_bytes()[:-1])


@pytest.mark.parametrize("harm", [Path.unlink, damage_same_size, truncate])
@pytest.mark.parametrize("which", ["listing", "file"])
def test_a_remote_that_is_not_whole_is_found_out(clone: Path, harm: Callable[[Path], None], which: str) -> None:
    """DVC alone takes what the remote has under a digest for what the digest says."""
    chosen = [file for file in objects(clone) if file.name.endswith(".dir") == (which == "listing")]
    harm(chosen[0])
    with pytest.raises(DataError, match=r"data/yard: the DVC remote .* lacks 1 of . objects of its pin"):
        fetched(clone)
    assert not (clone / "data" / "yard").exists()


def test_a_hostile_listing_writes_nothing(clone: Path) -> None:
    """A listing that names a file outside the folder, with a digest of its own that a pin then has."""
    text = json.dumps([{"md5": hashlib.md5(b"one").hexdigest(), "relpath": "../../evil.png"}])
    digest = hashlib.md5(text.encode()).hexdigest()
    place = clone.parent / "remote" / "files" / "md5" / digest[:2]
    place.mkdir(exist_ok=True)
    (place / f"{digest[2:]}.dir").write_text(text)
    (clone / "data" / "yard.dvc").write_text(f"outs:\n- md5: {digest}.dir\n  size: 3\n  nfiles: 1\n  hash: md5\n  path: yard\n")
    with pytest.raises(DataError, match=r"its listing names '\.\./\.\./evil\.png'"):
        fetched(clone)
    assert not list(clone.parent.rglob("evil*"))


def test_without_a_remote_the_cache_may_do(pushed: Path, clone: Path) -> None:
    (clone / ".dvc" / "config").write_text("[core]\n    no_scm = true\n")
    with pytest.raises(PlatformError, match="no remote specified"):
        fetched(clone)
    shutil.copytree(pushed / ".dvc" / "cache", clone / ".dvc" / "cache")
    assert fetched(clone) == ["data/yard"]


def test_a_project_without_dvc_says_so(tmp_path: Path) -> None:
    with pytest.raises(PlatformError, match="not inside of a DVC repository"), data_repo(tmp_path):
        pass


SETTINGS: dict[str, Any] = {"data": {"world": None, "root": "data", "benchmarks": ["C2A"], "proxy": "cityscapes/train"}}


def test_inputs_of_a_run_are_pinned_unpinned_or_missing(clone: Path) -> None:
    settings = settings_from_tree(SETTINGS)
    (clone / "data" / "yard.dvc").rename(clone / "data" / "cityscapes.dvc")
    file = clone / "data" / "cityscapes.dvc"
    file.write_text(file.read_text().replace("yard", "cityscapes"))
    with pytest.raises(DataError, match=r"^data/acdc: not here, and not pinned \(no data/acdc\.dvc\)"):
        pinned_inputs(clone, Recipe.of(settings))
    (clone / "data" / "acdc").mkdir()
    found = pinned_inputs(clone, Recipe.of(settings))
    assert ([pin.path for pin in found.pins], found.unpinned) == (["data/cityscapes"], ("data/acdc",))


def test_the_rendered_world_has_no_pins(clone: Path) -> None:
    assert pinned_inputs(clone, Recipe.of(settings_from_tree({}))) == PinnedInputs()


def test_the_revision_is_the_commit_of_the_pin_as_it_stands(tmp_path: Path) -> None:
    def git(*words: str) -> str:
        return subprocess.run(["git", "-C", str(tmp_path), *words], check=True, capture_output=True, text=True).stdout.strip()

    def commit(name: str) -> str:
        git("add", name)
        git("-c", "user.name=t", "-c", "user.email=t@example.org", "commit", "--quiet", "--message", name)
        return git("rev-parse", "HEAD")

    file = tmp_path / "a.dvc"
    file.write_text("1")
    assert committed_revision(tmp_path, "a.dvc") is None, "outside of git"
    git("init", "--quiet")
    assert committed_revision(tmp_path, "a.dvc") is None, "not tracked"
    first = commit("a.dvc")
    (tmp_path / "b").touch()
    commit("b")
    assert committed_revision(tmp_path, "a.dvc") == first
    file.write_text("2")
    assert committed_revision(tmp_path, "a.dvc") is None, "changed since"
