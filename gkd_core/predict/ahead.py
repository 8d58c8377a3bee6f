"""Work done ahead in a thread of its own, within bounds."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from typing import Generic, TypeVar

Item = TypeVar("Item")


class Ahead(Generic[Item]):
    """The items of an iterator, made ahead by a thread: so many at most, and together no heavier than that; one may always be.

    An error of the iterator is raised in its place. Leaving the `with` block ends the thread.
    """

    def __init__(self, source: Iterator[Item], most: int, heaviest: int, weight: Callable[[Item], int]) -> None:
        self._source, self._most, self._heaviest, self._weigh = source, most, heaviest, weight
        self._made: deque[Item] = deque()
        self._weight = 0
        self._ended = self._stopped = False
        self._error: BaseException | None = None
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._make, name="gkd-ahead", daemon=True)

    def __enter__(self) -> Iterator[Item]:
        self._thread.start()
        return self._items()

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
        self._thread.join()

    def _items(self) -> Iterator[Item]:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._made or self._ended)
                if not self._made:
                    if self._error is not None:
                        raise self._error
                    return
                item = self._made.popleft()
                self._weight -= self._weigh(item)
                self._changed.notify_all()
            yield item

    def _make(self) -> None:
        try:
            for item in self._source:
                weight = self._weigh(item)
                with self._changed:
                    self._changed.wait_for(partial(self._may_go_on, weight))
                    if self._stopped:
                        return
                    self._made.append(item)
                    self._weight += weight
                    self._changed.notify_all()
        except BaseException as error:  # raised where the items are taken
            self._error = error
        finally:
            with self._changed:
                self._ended = True
                self._changed.notify_all()

    def _may_go_on(self, weight: int) -> bool:
        few = len(self._made) < self._most and self._weight + weight <= self._heaviest
        return self._stopped or not self._made or few
