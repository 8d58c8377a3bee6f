"""One service kept alive, by a clock and processes that are made up."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event

from hypothesis import given
from hypothesis import strategies as st

from flows.local_platform.service_monitor import CHECK_SECONDS, LONGEST_SECONDS, MISSES, Restarts, ServiceMonitor
from flows.local_platform.services import Service
from gkd_core.system.platform_state import Health

FOREVER = float("inf")


@dataclass
class Life:
    """One run of the service, told in advance: seconds from its start."""

    answers_from: float = 2
    answers_until: float = FOREVER
    ends: float = FOREVER


@dataclass
class World:
    """Time passes only when somebody sleeps."""

    lives: list[Life]
    stop_at: float = FOREVER
    ready_from: float = 0
    now: float = 0
    started: float = 0
    pid: int = 0
    open: int = 0
    told: list[tuple[Health, str]] = field(default_factory=list)

    def poll(self) -> int | None:
        return 9 if self.now - self.started >= self.life.ends else None

    @property
    def life(self) -> Life:
        return self.lives[self.pid - 1]

    @contextmanager
    def start(self) -> Iterator[World]:
        assert self.open == 0, "the last one still runs"
        self.pid, self.started, self.open = self.pid + 1, self.now, 1
        yield self
        self.open = 0

    def answers(self) -> bool:
        return self.life.answers_from <= self.now - self.started < self.life.answers_until

    def sleep(self, seconds: float) -> bool:
        self.now = min(self.now + seconds, self.stop_at)
        return self.now >= self.stop_at

    def report(self, health: Health, *, pid: int | None = None, restarts: int = 0, detail: str = "") -> None:
        self.told.append((health, detail))

    def keep(self, restarts: Restarts | None = None) -> list[Health]:
        ServiceMonitor(
            service=Service("mlflow", "MLflow server", ("true",), Path(), "http://check", "http://page", {}, start_seconds=60),
            start=self.start,
            answers=self.answers,
            ready=lambda: self.now >= self.ready_from,
            report=self.report,
            stop=Event(),
            restarts=restarts or Restarts(),
            clock=lambda: self.now,
            sleep=self.sleep,
        ).keep()
        assert self.open == 0
        return [health for health, _ in self.told]


def test_a_service_that_is_well_is_left_alone_until_the_end() -> None:
    world = World([Life()], stop_at=5000)
    assert world.keep() == ["starting", "healthy", "stopped"]


def test_one_that_dies_is_started_again() -> None:
    world = World([Life(ends=100), Life()], stop_at=500)
    assert world.keep() == ["starting", "healthy", "restarting", "starting", "healthy", "stopped"]
    assert ("restarting", "ended with exit status 9; again in 1 s") in world.told


def test_one_that_stops_answering_is_started_again_after_patience() -> None:
    world = World([Life(answers_until=100), Life()], stop_at=1000)
    assert world.keep() == ["starting", "healthy", "unresponsive", "restarting", "starting", "healthy", "stopped"]
    assert world.started >= 100 + (MISSES - 1) * CHECK_SECONDS
    assert ("restarting", "stopped answering; again in 1 s") in world.told


def test_a_short_silence_is_forgiven() -> None:
    class Busy(World):
        def answers(self) -> bool:
            return super().answers() and not 100 <= self.now < 100 + (MISSES - 2) * CHECK_SECONDS

    world = Busy([Life()], stop_at=1000)
    assert world.keep() == ["starting", "healthy", "unresponsive", "healthy", "stopped"]


def test_one_that_never_answers_is_given_up_with_the_reason() -> None:
    world = World([Life(answers_from=FOREVER)] * 3)
    assert world.keep(Restarts(allowed=2)) == ["starting", "restarting"] * 2 + ["starting", "failed"]
    assert world.told[-1] == ("failed", "did not answer within 60 s; given up after 2 restarts")


def test_it_waits_for_what_it_needs() -> None:
    world = World([Life()], ready_from=30, stop_at=100)
    assert world.keep() == ["starting", "healthy", "stopped"]
    assert world.started >= 30


def test_a_stop_while_it_waits_starts_nothing_more() -> None:
    waiting = World([], ready_from=FOREVER, stop_at=10)
    assert waiting.keep() == ["stopped"]
    pausing = World([Life(ends=100)], stop_at=100.8)
    assert pausing.keep()[-2:] == ["restarting", "stopped"]
    assert pausing.pid == 1


def test_a_start_that_the_system_refuses_counts_as_a_failure() -> None:
    class Full(World):
        @contextmanager
        def start(self) -> Iterator[World]:
            raise OSError(28, "No space left on device")
            yield self

    world = Full([])
    assert world.keep(Restarts(allowed=1)) == ["restarting", "failed"]
    assert "No space left on device" in world.told[-1][1]


def test_delays_double_and_then_it_gives_up() -> None:
    restarts = Restarts(allowed=4, span=100)
    assert [restarts.delay_after(now) for now in (0, 1, 2, 3, 4)] == [1, 2, 4, 8, None]
    assert restarts.total == 4


def test_what_is_long_past_does_not_count() -> None:
    restarts = Restarts(allowed=2, span=100)
    assert [restarts.delay_after(now) for now in (0, 99, 200, 299, 400)] == [1, 2, 1, 2, 1]


@given(st.lists(st.floats(min_value=0, max_value=1e4), min_size=1, max_size=30))
def test_never_more_than_allowed_within_the_span(gaps: list[float]) -> None:
    restarts = Restarts(allowed=5, span=900)
    now, starts = 0.0, []
    for gap in gaps:
        now += gap
        delay = restarts.delay_after(now)
        if delay is None:
            break
        assert 0 < delay <= LONGEST_SECONDS
        starts.append(now)
    assert all(sum(start - 900 < other <= start for other in starts) <= 5 for start in starts)
