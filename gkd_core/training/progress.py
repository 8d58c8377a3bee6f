"""Progress of long work: a bar with an estimate on a terminal, a quiet line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

Advance = Callable[[int], None]
QUIET_SECONDS = 15.0


class RateColumn(ProgressColumn):
    """How many of a unit are done a second."""

    def __init__(self, unit: str) -> None:
        super().__init__()
        self._unit = unit

    def render(self, task: Task) -> Text:
        return Text("" if task.speed is None else f"{task.speed:.1f} {self._unit}/s")


@contextmanager
def progress(title: str, total: int, start: int = 0, unit: str | None = None) -> Iterator[Advance]:
    """Give a function that takes the amount done so far; with a unit, such as images, their rate is shown too."""
    console = Console(stderr=True)
    if console.is_terminal:
        with Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            *(() if unit is None else (RateColumn(unit),)),
            console=console,
        ) as bars:
            task = bars.add_task(title, total=total, completed=start)
            yield lambda done: bars.update(task, completed=done)
        return
    yield _quiet_lines(title, total, start, unit)


def _quiet_lines(title: str, total: int, start: int, unit: str | None) -> Advance:
    began = spoke = time.monotonic()

    def advance(done: int) -> None:
        nonlocal spoke
        now = time.monotonic()
        if done < total and now - spoke < QUIET_SECONDS:
            return
        spoke = now
        rate = (done - start) / max(now - began, 1e-9)
        rest = f", {(total - done) / rate:.0f} s left" if rate > 0 and done < total else ""
        pace = "" if unit is None else f" ({rate:.1f} {unit}/s)"
        print(f"{title}: {done} of {total} in {now - began:.0f} s{pace}{rest}", file=sys.stderr, flush=True)

    return advance
