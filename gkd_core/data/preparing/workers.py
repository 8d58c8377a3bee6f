"""Work shared out among processes, none of which outlives this one."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import wait
from typing import TypeVar

from gkd_core.errors import PlatformError

Task = TypeVar("Task")
Result = TypeVar("Result")


def share_out(work: Callable[[Task], Result], tasks: Sequence[Task], jobs: int, advance: Callable[[int], None]) -> list[Result]:
    """`work` of each task, in their order, done by `jobs` processes, or here where that is 1. Tasks and results are pickled.

    Raises:
        PlatformError: a process ended on its own.
        Exception: what `work` raised first; tasks that have not begun are left then.
    """
    jobs = min(jobs, len(tasks))
    results: dict[int, Result] = {}
    if jobs <= 1:
        for number, task in enumerate(tasks):
            results[number] = work(task)
            advance(len(results))
        return list(results.values())
    # Started anew rather than forked: a fork of a process with threads (progress bars) may hang.
    pool = ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"), end_with_parent)
    try:
        futures = {pool.submit(work, task): number for number, task in enumerate(tasks)}
        for future in as_completed(futures):
            results[futures[future]] = future.result()
            advance(len(results))
    except BrokenProcessPool:
        raise PlatformError("a process that prepares data has ended; it may have run out of memory: use fewer --jobs") from None
    finally:
        pool.shutdown(cancel_futures=True)
    return [results[number] for number in range(len(tasks))]


def end_with_parent() -> None:
    """Ctrl-C is the parent's to handle; and a parent that is killed must not leave a worker that writes on."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None  # it is a worker

    def watch() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
