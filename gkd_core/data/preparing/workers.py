"""Work shared out among processes, none of which outlives this one."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing.connection import wait
from typing import Protocol, TypeVar

from gkd_core.errors import PlatformError

Task = TypeVar("Task")
Result = TypeVar("Result")


class ShareOut(Protocol):
    """`work` of each task, in the order of the tasks; `advance` takes how many are done.

    Raises:
        PlatformError: a process ended on its own.
        Exception: what `work` raised first.
    """

    def __call__(self, work: Callable[[Task], Result], tasks: Sequence[Task], advance: Callable[[int], None]) -> list[Result]: ...


@contextmanager
def sharing(jobs: int) -> Iterator[ShareOut]:
    """Give what shares work out among `jobs` processes, which end with the block, or does it here where that is 1.

    Work, tasks and results are pickled. Where one fails, tasks that have not begun are left.
    """
    if jobs == 1:
        yield _one_by_one
        return
    # Started anew rather than forked: a fork of a process with threads (progress bars) may hang.
    pool = ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"), _end_with_parent)
    try:
        yield _Pooled(pool)
    finally:
        pool.shutdown(cancel_futures=True)


def _one_by_one(work: Callable[[Task], Result], tasks: Sequence[Task], advance: Callable[[int], None]) -> list[Result]:
    results = []
    for task in tasks:
        results.append(work(task))
        advance(len(results))
    return results


class _Pooled:
    def __init__(self, pool: ProcessPoolExecutor) -> None:
        self._pool = pool

    def __call__(self, work: Callable[[Task], Result], tasks: Sequence[Task], advance: Callable[[int], None]) -> list[Result]:
        try:
            futures = [self._pool.submit(work, task) for task in tasks]
            for done, future in enumerate(as_completed(futures), 1):
                future.result()
                advance(done)
        except BrokenProcessPool:
            raise PlatformError(
                "a process that prepares data has ended; it may have run out of memory: use fewer --jobs"
            ) from None
        return [future.result() for future in futures]


def _end_with_parent() -> None:
    """Ctrl-C is the parent's to handle; and a parent that is killed must not leave a worker that writes on."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None  # it is a worker

    def watch() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
