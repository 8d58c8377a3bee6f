"""A stage brought up to date as the flows do it, for tests that need its result alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from gkd_core.stages import StageRun
from gkd_core.versioning.recipe import Outcome, reproduction


def reproduce(
    workspace: Path, run: StageRun, on_start: Callable[[], None] = lambda: None, env: Mapping[str, str] | None = None
) -> Outcome:
    """Run the stage's command where DVC finds it due, after `on_start`."""
    with reproduction(workspace, run, env) as dvc:
        if dvc.is_due:
            on_start()
            dvc.work()
    return dvc.outcome
