"""A platform whose state file this version cannot read is said to be there, and is stopped all the same."""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from flows.local_platform import processes
from flows.local_platform.__main__ import status_command
from flows.local_platform.services import PROFILE
from flows.local_platform.start import check_version
from flows.local_platform.stop import stop_platform
from gkd_core.errors import PlatformError
from gkd_core.system.platform_state import STATE_FILE, has_unreadable_state, read_state

SLEEP = "import time; time.sleep(120)"
CONTENTS = [b'{"version": 7, "mark": "abc"}', b"", b"\x00\xff", b"[]", b"{"]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path.resolve() / "trees" / "inner"
    (folder / STATE_FILE).parent.mkdir(parents=True)
    return folder


@pytest.fixture
def running(project: Path) -> Iterator[list[subprocess.Popen[bytes]]]:
    """A supervisor and a service of another version, working in the project."""
    environment = {**os.environ, processes.VARIABLE: f"{uuid.uuid4().hex}:prefect"}
    plain = {name: value for name, value in os.environ.items() if name != processes.VARIABLE}
    found = [
        subprocess.Popen([sys.executable, "-c", SLEEP, processes.SUPERVISOR, "4200"], cwd=project, env=plain),
        subprocess.Popen([sys.executable, "-c", SLEEP], cwd=(project / STATE_FILE).parent, env=environment),
    ]
    yield found
    for process in found:
        process.kill()
        process.wait()


@pytest.mark.parametrize("content", CONTENTS)
def test_a_state_that_cannot_be_read_is_none_and_is_known_to_be_there(project: Path, content: bytes) -> None:
    assert not has_unreadable_state(project)
    (project / STATE_FILE).write_bytes(content)
    assert read_state(project) is None and has_unreadable_state(project)
    check_version(project)  # nothing runs: it is a leftover
    assert stop_platform(project) is None
    assert not (project / STATE_FILE).exists()


def test_what_runs_is_named_at_once_and_is_stopped(project: Path, running: list[subprocess.Popen[bytes]]) -> None:
    (project / STATE_FILE).write_bytes(CONTENTS[0])
    with pytest.raises(PlatformError, match=rf"another version runs here \(process {running[0].pid}\): make down stops it"):
        check_version(project)
    stopped = stop_platform(project)
    assert stopped is not None
    assert [process.wait(30) is not None for process in running] == [True, True]
    assert not (project / STATE_FILE).exists()


def test_what_a_killed_supervisor_of_another_version_left_is_named_and_is_stopped(
    project: Path, running: list[subprocess.Popen[bytes]]
) -> None:
    supervisor, service = running
    supervisor.kill()
    supervisor.wait()
    (project / STATE_FILE).write_bytes(CONTENTS[0])
    with pytest.raises(PlatformError, match=rf"another version runs here \(process {service.pid}\)"):
        check_version(project)
    assert stop_platform(project) is not None
    assert service.wait(30) is not None
    check_version(project)


def test_status_says_that_another_version_runs(
    project: Path, running: list[subprocess.Popen[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    (project / STATE_FILE).write_bytes(CONTENTS[0])
    monkeypatch.chdir(project)
    with pytest.raises(PlatformError, match="another version runs here"):
        status_command()


def test_a_project_that_lies_within_this_one_is_another(tmp_path: Path, running: list[subprocess.Popen[bytes]]) -> None:
    """`running` works in `tmp_path/trees/inner`: a checkout beside others, all below a folder that is a project too."""
    assert stop_platform(tmp_path.resolve()) is None
    (tmp_path / STATE_FILE).parent.mkdir(parents=True)
    (tmp_path / STATE_FILE).write_bytes(CONTENTS[0])
    check_version(tmp_path.resolve())
    assert stop_platform(tmp_path.resolve()) is None
    assert [process.poll() for process in running] == [None, None]


def test_down_takes_the_profile_with_the_key_away(project: Path) -> None:
    """The prefect command would sign in with it wherever PREFECT_API_URL leads."""
    (project / STATE_FILE).write_bytes(CONTENTS[0])
    (project / PROFILE).write_text("x")
    stop_platform(project)
    assert not (project / PROFILE).exists()


def test_a_platform_of_another_project_is_left_alone(
    tmp_path: Path, project: Path, running: list[subprocess.Popen[bytes]]
) -> None:
    other = tmp_path / "elsewhere"
    (other / STATE_FILE).parent.mkdir(parents=True)
    (other / STATE_FILE).write_bytes(CONTENTS[0])
    check_version(other)
    assert stop_platform(other) is None
    assert [process.poll() for process in running] == [None, None]
