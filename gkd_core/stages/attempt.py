"""One attempt at a stage, whose earlier ones may have been killed at any moment."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gkd_core.files import is_temporary_of_any_version, sweep, sweep_beside
from gkd_core.training.cost import measured

LOG = logging.getLogger(__name__)


@contextmanager
def attempt(run_folder: Path, output: Path) -> Iterator[None]:
    """Measure this process while the block lasts; what killed attempts have left half-written is removed first."""
    sweep_run_folder(run_folder)
    sweep_beside(output)
    with measured(run_folder):
        yield


def sweep_run_folder(run_folder: Path) -> None:
    """Remove what killed attempts have left half-written among a stage's checkpoints and notes, and say so in one line.

    Nobody but the stage writes there: who has its lock may sweep. What a living process writes all the same stays.
    """
    removed = sweep(run_folder, is_temporary_of_any_version)
    if removed:
        names = ", ".join(sorted({path.name for path in removed})[:3])
        LOG.warning("%s: removed %d leftovers of killed attempts, such as %s", run_folder, len(removed), names)
