"""Work shared out among processes, any of which may crash on the file that it reads."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from gkd_core.data.preparing.workers import start_processes
from gkd_core.errors import PlatformError

Job = TypeVar("Job")
Result = TypeVar("Result")
CHUNK = 8
AHEAD = 2  # chunks a process has waiting


def in_processes(
    work: Callable[[Job], Result], jobs: Sequence[Job], processes: int, lost: Callable[[Job], Result]
) -> Iterator[tuple[int, Result]]:
    """`work(job)` for every job, each with the job's index, in the order in which they are done.

    With one process the work is done here. Else a job whose process dies of it (out of memory, a fault of a decoder) gives
    `lost(job)`: those under way at the time are tried again one by one, each chunk in a process of its own.

    Raises:
        PlatformError: no process can be started.
    """
    if processes == 1:
        yield from enumerate(map(work, jobs))
        return
    waiting = deque((start, jobs[start : start + CHUNK]) for start in range(0, len(jobs), CHUNK))
    while waiting:
        suspects: list[tuple[int, Sequence[Job]]] = []
        yield from _until_one_dies(work, waiting, processes, suspects)
        for start, chunk in suspects:
            yield from _alone(work, start, chunk, lost)


def _until_one_dies(
    work: Callable[[Job], Result],
    waiting: deque[tuple[int, Sequence[Job]]],
    processes: int,
    suspects: list[tuple[int, Sequence[Job]]],
) -> Iterator[tuple[int, Result]]:
    """Work off `waiting`; when a process dies, leave the chunks that were under way in `suspects`."""
    pool = _started(processes)
    under_way: dict[Future[list[Result]], tuple[int, Sequence[Job]]] = {}
    try:
        while waiting or under_way:
            while waiting and len(under_way) < processes * AHEAD:
                chunk = waiting.popleft()
                suspects.append(chunk)
                under_way[pool.submit(_each, work, chunk[1])] = chunk
            for done in wait(under_way, return_when=FIRST_COMPLETED).done:
                results = done.result()
                chunk = under_way.pop(done)
                suspects.remove(chunk)
                yield from enumerate(results, chunk[0])
    except BrokenProcessPool:
        return
    finally:
        pool.shutdown(cancel_futures=True)


def _alone(
    work: Callable[[Job], Result], start: int, chunk: Sequence[Job], lost: Callable[[Job], Result]
) -> Iterator[tuple[int, Result]]:
    """The results of one chunk, halved until the job that kills its process is found."""
    try:
        with _started(1) as pool:
            results = pool.submit(_each, work, chunk).result()
    except BrokenProcessPool:
        if len(chunk) == 1:
            yield start, lost(chunk[0])
            return
        half = len(chunk) // 2
        yield from _alone(work, start, chunk[:half], lost)
        yield from _alone(work, start + half, chunk[half:], lost)
        return
    yield from enumerate(results, start)


def _each(work: Callable[[Job], Result], chunk: Sequence[Job]) -> list[Result]:
    return [work(job) for job in chunk]


def _started(processes: int) -> ProcessPoolExecutor:
    try:
        return start_processes(processes)
    except BrokenProcessPool:
        raise PlatformError("processes that read files end as soon as they start; use --jobs 1") from None
