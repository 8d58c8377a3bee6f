"""The state file, and what is made of one that is out of date."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from flows.local_platform.processes import mark_of
from flows.local_platform.services import Ports, services
from flows.local_platform.start import running_state
from flows.local_platform.stop import stop_platform
from flows.local_platform.supervisor import StateWriter, first_state
from gkd_core.system.platform_state import STATE_FILE, PlatformState, ProcessMark, read_state
from gkd_core.system.server_keys import ServerKeys

KEYS = ServerKeys.new()


def state_of(project: Path, supervisor: ProcessMark) -> PlatformState:
    every = services(project, Ports(), None, KEYS)
    return PlatformState(
        supervisor=supervisor,
        mark="0123",
        ports=Ports().as_dict(),
        database="sqlite",
        services=tuple(first_state(service) for service in every),
    )


@pytest.fixture
def gone() -> ProcessMark:
    """As after a power cut: the number is another process's by now."""
    return ProcessMark(pid=os.getppid(), began=1.0)


def test_a_change_is_on_disk_at_once_and_since_follows_the_health(tmp_path: Path, gone: ProcessMark) -> None:
    state_writer = StateWriter(tmp_path, state_of(tmp_path, gone))
    early = state_writer._state.services[0].since.replace(year=2000)
    state_writer.note("prefect", since=early)
    state_writer.note("prefect", pid=7)
    state = read_state(tmp_path)
    assert state is not None
    assert (state.services[0].pid, state.services[0].since) == (7, early)
    state_writer.note("prefect", health="healthy")
    state = read_state(tmp_path)
    assert state is not None
    assert state.services[0].health == state_writer.health("prefect") == "healthy"
    assert state.services[0].since > early
    assert not state.is_well
    assert [path.name for path in (tmp_path / STATE_FILE).parent.iterdir()] == [STATE_FILE.name]


def test_a_state_of_before_a_power_cut_is_not_believed(tmp_path: Path, gone: ProcessMark) -> None:
    state_of(tmp_path, gone).write(tmp_path)
    assert running_state(tmp_path) is None
    assert stop_platform(tmp_path) is None
    assert not (tmp_path / STATE_FILE).exists()


def test_a_state_of_a_live_supervisor_is(tmp_path: Path) -> None:
    state = state_of(tmp_path, mark_of(os.getpid()))
    state.write(tmp_path)
    assert running_state(tmp_path) == state


@pytest.mark.parametrize("text", ["", "{}", '{"supervisor": 5}'])
def test_a_damaged_file_counts_as_none(tmp_path: Path, text: str) -> None:
    (tmp_path / STATE_FILE).parent.mkdir(parents=True)
    (tmp_path / STATE_FILE).write_text(text)
    assert running_state(tmp_path) is None
