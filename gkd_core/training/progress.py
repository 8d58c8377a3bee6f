"""Progress of long work: a bar with an estimate on a terminal, a quiet line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

Advance = Callable[[int], None]
QUIET_SECONDS = 15.0


@contextmanager
def progress(title: str, total: int, start: int = 0) -> Iterator[Advance]:
    """Give a function that takes the amount done so far."""
    console = Console(stderr=True)
    if console.is_terminal:
        with Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console,
        ) as bars:
            task = bars.add_task(title, total=total, completed=start)
            yield lambda done: bars.update(task, completed=done)
        return
    yield _quiet_lines(title, total, start)


def _quiet_lines(title: str, total: int, start: int) -> Advance:
    began = spoke = time.monotonic()

    def advance(done: int) -> None:
        nonlocal spoke
        now = time.monotonic()
        if done < total and now - spoke < QUIET_SECONDS:
            return
        spoke = now
        rate = (done - start) / max(now - began, 1e-9)
        rest = f", {(total - done) / rate:.0f} s left" if rate > 0 and done < total else ""
        print(f"{title}: {done} of {total} in {now - began:.0f} s{rest}", file=sys.stderr, flush=True)

    return advance
