"""How a stage is run in this process: what its function is given, and what is done around it."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from gkd_core.data.catalog.load import Domain
from gkd_core.data.files.origin import Origin
from gkd_core.files import is_temporary_of_any_version, sweep, sweep_beside
from gkd_core.settings import Settings
from gkd_core.stages.facts import STAGES
from gkd_core.stages.recipe import Recipe
from gkd_core.stages.run import StageRun, run_folder
from gkd_core.training.cost import noting_cost

LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Context:
    """What every stage function is given."""

    recipe: Recipe
    run: StageRun
    workspace: Path

    @property
    def settings(self) -> Settings:
        """The recipe's settings."""
        return self.recipe.settings

    def domain(self, reference: str) -> Domain:
        """A domain by its `dataset/split`; `DataError` where it is unknown."""
        return self.recipe.catalog.domain(reference)

    @property
    def origin(self) -> Origin:
        """Where the datasets lie, by absolute paths."""
        return self.recipe.origin(self.workspace)

    @property
    def output(self) -> Path:
        """Absolute folder that the stage writes."""
        return self.workspace / self.run.output

    @property
    def run_folder(self) -> Path:
        """Absolute folder of the stage's checkpoints and step metrics."""
        return run_folder(self.settings, self.run, self.workspace)


StageFunction = Callable[[Context], None]


def run_stage(recipe: Recipe, run: StageRun, workspace: Path) -> None:
    """Run one stage in this process; what a killed attempt left half-written goes first, what it costs is noted.

    Raises:
        GkdError: whatever the user has to mend; nothing is left under the output's name then.
    """
    context = Context(recipe, run, workspace.resolve())
    with attempt(context.run_folder, context.output):
        _function(run.stage)(context)


@contextmanager
def attempt(run_folder: Path, output: Path) -> Iterator[None]:
    """Note the cost of this process while the block lasts; what killed attempts have left half-written is removed first."""
    sweep_run_folder(run_folder)
    sweep_beside(output)
    with noting_cost(run_folder):
        yield


def sweep_run_folder(run_folder: Path) -> None:
    """Remove what killed attempts have left half-written among a stage's checkpoints and notes, and say so in one line.

    Nobody but the stage writes there: who has its lock may sweep. What a living process writes all the same stays.
    """
    removed = sweep(run_folder, is_temporary_of_any_version)
    if removed:
        names = ", ".join(sorted({path.name for path in removed})[:3])
        LOG.warning("%s: removed %d leftovers of killed attempts, such as %s", run_folder, len(removed), names)


def _function(stage: str) -> StageFunction:
    """The stage's function; its module is imported only now, so that no process loads what another stage needs."""
    module, name = STAGES[stage].work
    function: StageFunction = getattr(importlib.import_module(f"gkd_core.stages.{module}"), name)
    return function
