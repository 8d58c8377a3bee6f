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
from multiprocessing import resource_tracker
from multiprocessing.connection import wait
from multiprocessing.synchronize import Barrier
from typing import Protocol, TypeVar

from gkd_core.errors import PlatformError

Task = TypeVar("Task")
Result = TypeVar("Result")
START_LIMIT_S = 300.0  # a process imports torch in seconds; on a busy disk of the network in minutes


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
    try:
        pool = start_processes(jobs)
    except BrokenProcessPool:
        raise PlatformError("processes that prepare data end as soon as they start; use --jobs 1") from None
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


def start_processes(count: int) -> ProcessPoolExecutor:
    """An executor whose processes all run, and leave Ctrl-C to this one.

    The executor would start each when it is first needed. But where one dies while another is being started, Python 3.11's
    ends those that it knew of and then waits for all, forever.

    Raises:
        BrokenProcessPool: one ended as soon as it had started.
    """
    # Spawned, as a process forked from one with threads (torch, a progress bar) may hang on a lock that no one will free.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(count, context, _begin, (context.Barrier(count, timeout=START_LIMIT_S),))
    # Ctrl-C reaches every process of a terminal, and the first one alone shall answer it: the others inherit that it is blocked.
    resource_tracker.ensure_running()  # a helper of all spawned processes, which unblocks it when started later
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        probes = [pool.submit(int) for _ in range(count)]  # none is idle before all have started: each starts one
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    try:
        for probe in probes:
            probe.result()
    except BrokenProcessPool:
        pool.shutdown(cancel_futures=True)
        raise
    return pool


def _begin(together: Barrier) -> None:
    _end_with_parent()
    together.wait()


def _end_with_parent() -> None:
    """Ctrl-C is the parent's to handle; and a parent that is killed must not leave a worker that writes on."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None  # it is a worker

    def watch() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
