"""Ray's sockets find a short path, whatever TMPDIR is; where there is none, that is said at once and not tried again."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from gkd_core.cluster import own_cluster
from gkd_core.cluster.own_cluster import LONGEST_FOLDER, own_folder, plain_python, sweep_folders
from gkd_core.errors import PlatformError, TransientError

SOCKET = "session_2026-01-01_12-30-45_123456_1234567/sockets/plasma_store"
LONG = "a-rather-long-folder-name-of-a-batch-system"


@pytest.fixture
def long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A TMPDIR that no socket can lie in."""
    folder = tmp_path / LONG
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def test_a_long_temporary_folder_is_passed_over(long: Path) -> None:
    with own_folder() as folder:
        assert len(os.fsencode(folder.ray / SOCKET)) <= 107
        assert long not in folder.path.parents
        assert folder.path.stat().st_mode & 0o777 == 0o700
    assert not folder.path.exists()


@pytest.mark.parametrize("size", [LONGEST_FOLDER - 1, LONGEST_FOLDER])
def test_a_short_one_is_used_as_it_is(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    with tempfile.TemporaryDirectory(prefix="g", dir=own_cluster.SHORT[0]) as top:
        folder = Path(top, "x" * (size - len(top) - 1))
        folder.mkdir()
        monkeypatch.setattr(tempfile, "tempdir", str(folder))
        with own_folder() as own:
            assert own.path.parent == folder
            assert len(os.fsencode(own.ray / SOCKET)) <= 107


def test_what_was_left_in_a_short_folder_is_swept(long: Path) -> None:
    left = Path(tempfile.mkdtemp(prefix=own_cluster.PREFIX, dir=own_cluster.SHORT[0]))
    (left / own_cluster.IN_USE).touch()
    assert str(left) in sweep_folders()
    assert not left.exists()


def test_without_a_short_one_the_variable_is_named_and_waiting_does_not_help(long: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(own_cluster, "SHORT", (f"/nowhere/{LONG}",))
    with (
        pytest.raises(PlatformError, match="^TMPDIR: .* is too long for Ray's sockets.*set TMPDIR to a short path") as error,
        own_folder(),
    ):
        pass
    assert not isinstance(error.value, TransientError)


@pytest.mark.parametrize("name", ["a space", "Größe", "it's", "a$HOME", "two;true"])
def test_an_environment_whose_path_a_shell_takes_apart_is_reached_by_a_link(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray runs `bash -c "exec PYTHON …"`, unquoted."""
    environment = tmp_path / name / "venv"
    environment.parent.mkdir()
    environment.symlink_to(sys.prefix)
    monkeypatch.setattr(sys, "executable", str(environment / Path(sys.executable).relative_to(sys.prefix)))
    monkeypatch.setattr(sys, "prefix", str(environment))
    with own_folder() as folder:
        python = plain_python(folder.path)
        assert plain_python(folder.path) == python and shlex.quote(python) == python
        command = ["bash", "-c", f"exec {python} -c 'import ray, gkd_core; print(ray.__file__)'"]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert done.stdout.startswith(str(folder.path)), "its packages are reached by the link too"


def test_a_plain_path_needs_no_link(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/opt/plain-1.0/bin/python3")
    with own_folder() as folder:
        assert plain_python(folder.path) == "/opt/plain-1.0/bin/python3"
        assert not (folder.path / "python").exists()
