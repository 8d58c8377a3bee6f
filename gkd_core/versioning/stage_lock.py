"""Turns at a stage: two flow runs that need the same result do not both compute it.

The second waits until the first is done, and then finds the result in DVC's cache. So too may no two processes write the
checkpoints of one run folder, which is named by the same digest. The lock is an operating system's on a file below
`artifacts/runs`: it ends with its process, however that ends. It holds among the processes that share this folder.
"""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from gkd_core.messages import LONGEST_SHOWN, shown
from gkd_core.notes import clear_file, clear_folder
from gkd_core.paths import RUNS
from gkd_core.stages import StageRun
from gkd_core.stages.work import sweep_run_folder
from gkd_core.system.locks import try_lock

LOCKS = RUNS / "locks"
POLL_SECONDS = 0.3


def digest_of(run_folder: Path, run: StageRun) -> str:
    """The digest of a stage's inputs that its run folder is named by."""
    return run_folder.name.removeprefix(f"{run.name}-")


@contextmanager
def stage_lock(
    project: Path, run: StageRun, digest: str, holder: str, on_wait: Callable[[str], None] = lambda holder: None
) -> Iterator[int]:
    """Hold a stage, for these inputs, while the block lasts; wait for whoever holds it.

    What killed attempts at it have left half-written is removed then: nobody else writes there.

    Yields:
        the lock's open file, for the stage's own process to keep open too: so the lock outlives us where we are killed, until
        that process has ended and writes no more.

    Args:
        digest: of the stage's inputs, as `run_folder` has it.
        holder: who we are, for those who wait for us.
        on_wait: told once who holds it, where we have to wait.
    """
    folder = project / LOCKS
    clear_folder(folder, "the locks are made again")
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{run.name}-{digest}"
    clear_file(path, "the lock is made again")
    # Never removed: another process may have it open to wait for it. They are empty but for a name.
    with path.open("a+", encoding="utf-8", errors="replace") as file:
        _take(file, on_wait)
        sweep_run_folder(project / RUNS / path.name)
        file.truncate(0)
        file.write(holder)
        file.flush()
        yield file.fileno()


def _take(file: TextIO, on_wait: Callable[[str], None]) -> None:
    told = False
    for attempt in itertools.count():
        if try_lock(file):
            return
        holder = _holder(file)
        # Who has taken it a moment ago has not written a name yet: then the next look will tell.
        if not told and (holder or attempt):
            on_wait(holder or "another run")
            told = True
        # Asked again and again rather than waited for in the system, where nothing could interrupt us.
        time.sleep(POLL_SECONDS)


def _holder(file: TextIO) -> str:
    file.seek(0, os.SEEK_SET)
    return shown(file.read(LONGEST_SHOWN + 1))
