"""When a service that ended is started again."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from flows.local_platform.restarts import LONGEST_SECONDS, Restarts


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
