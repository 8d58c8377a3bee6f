"""A flow ends itself where it is told that it counts as dead, or is told nothing for long; and for nothing else."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any
from unittest.mock import Mock
from uuid import UUID

import pytest
from prefect.client.schemas.objects import State
from prefect.events.actions import ChangeFlowRunState
from prefect.states import Completed, Crashed, Running

from flows import counted_dead
from flows.automations import heartbeat_automation

Answer = State[Any] | Exception | None
(MARKED,) = heartbeat_automation().actions
assert isinstance(MARKED, ChangeFlowRunState)
BY_SILENCE = Crashed(message=MARKED.message)
CUT_OFF = ConnectionError("no route")
RUN = UUID(int=7)


class Clock:
    """Time that passes only while somebody sleeps."""

    def __init__(self) -> None:
        self.now = 1000.0

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def monotonic(self) -> float:
        return self.now


def _look(monkeypatch: pytest.MonkeyPatch, answers: Iterable[Answer]) -> tuple[list[str], float]:
    """Why the process was ended, and after how many seconds; the last answer is given for ever."""
    clock = Clock()
    monkeypatch.setattr(counted_dead, "time", clock)
    given = iter(answers)
    last: Answer = None
    ends: list[str] = []

    def ask() -> State[Any] | None:
        nonlocal last
        last = next(given, last)
        if isinstance(last, Exception):
            raise last
        return last

    counted_dead.look(ask, ends.append, 30)
    return ends, clock.now - 1000


def test_it_ends_when_it_hears_that_its_heartbeat_was_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    ends, seconds = _look(monkeypatch, [Running(), CUT_OFF, CUT_OFF, CUT_OFF, CUT_OFF, BY_SILENCE])
    assert ends == [f"Prefect's server counts this flow run as dead ({BY_SILENCE.message})"]
    assert seconds == 6 * 30


def test_it_ends_when_it_has_heard_nothing_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    ends, seconds = _look(monkeypatch, [Running(), Running(), CUT_OFF])
    assert ends == ["Prefect's server has not answered for 600 s (no route)"]
    assert seconds == 2 * 30 + 600


@pytest.mark.parametrize("state", [Running(), Completed(), Crashed(message="Execution was aborted"), Crashed(), None])
def test_no_other_answer_ends_it_and_each_counts_as_one(monkeypatch: pytest.MonkeyPatch, state: State[Any] | None) -> None:
    """Its own end has been told, and is under way; a server that was away for a while has not been lost."""
    away: list[Answer] = [CUT_OFF] * 19
    ends, seconds = _look(monkeypatch, [*away, state, *away, state, BY_SILENCE])
    assert len(ends) == 1 and "counts this flow run as dead" in ends[0]
    assert seconds == 41 * 30


def test_only_what_a_worker_started_is_watched(monkeypatch: pytest.MonkeyPatch) -> None:
    threads = Mock()
    monkeypatch.setattr(counted_dead, "threading", threads)
    monkeypatch.delenv("PREFECT__FLOW_RUN_ID", raising=False)
    counted_dead.end_where_counted_dead(RUN)
    assert threads.Thread.call_count == 0
    monkeypatch.setenv("PREFECT__FLOW_RUN_ID", str(RUN))
    counted_dead.end_where_counted_dead(RUN)
    assert threads.Thread.call_count == 1
