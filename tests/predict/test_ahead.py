"""Work done ahead: in order, within bounds, its errors where its items would be, and no thread is left."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from gkd_core.predict.ahead import Ahead


def counting(count: int, made: list[int]) -> Iterator[int]:
    for number in range(count):
        made.append(number)
        yield number


def test_items_come_in_order() -> None:
    with Ahead(iter(range(100)), most=3, heaviest=10, weight=lambda item: 1) as items:
        assert list(items) == list(range(100))
    assert not [thread for thread in threading.enumerate() if thread.name == "gkd-ahead"]


@pytest.mark.parametrize(("most", "heaviest", "weight", "bound"), [(3, 100, 1, 3), (50, 40, 10, 4), (50, 5, 10, 1)])
def test_no_more_is_made_ahead_than_there_is_room_for(most: int, heaviest: int, weight: int, bound: int) -> None:
    made: list[int] = []
    reached = threading.Event()

    def source() -> Iterator[int]:
        for number in counting(20, made):
            if number == bound:
                reached.set()
            yield number

    with Ahead(source(), most, heaviest, lambda item: weight) as items:
        assert reached.wait(30)
        for taken, item in enumerate(items, start=1):
            assert item == taken - 1
            # What waits, the one that waits for room, and the one just taken.
            assert len(made) <= taken + bound + 1


def test_an_error_is_raised_in_its_place() -> None:
    def source() -> Iterator[int]:
        yield 1
        raise ValueError("two")

    with Ahead(source(), 9, 9, lambda item: 1) as items:
        assert next(items) == 1
        with pytest.raises(ValueError, match="two"):
            next(items)


def test_leaving_early_ends_the_thread() -> None:
    made: list[int] = []
    with Ahead(counting(1000, made), 2, 9, lambda item: 1) as items:
        assert next(items) == 0
    assert not [thread for thread in threading.enumerate() if thread.name == "gkd-ahead"]
    assert len(made) <= 5
