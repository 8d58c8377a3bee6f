"""The recipe: every stage declared once, with what it reads, what it writes and what its result depends on.

`gkd run STAGE` runs one of them here; `dvc.yaml` is this list rendered for DVC; the Prefect flow has DVC reproduce
them one by one. All paths are relative to the workspace, the folder that holds `params.yaml`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from gkd_core.data.catalog import Catalog, load_catalog
from gkd_core.errors import SettingsError
from gkd_core.methods import method_of
from gkd_core.settings import Settings

ARTIFACTS = Path("artifacts")
DATA = ARTIFACTS / "data"
RUNS = ARTIFACTS / "runs"  # checkpoints and step metrics of unfinished work; not an output
REPORT = ARTIFACTS / "report"

StageFunction = Callable[[Settings, "StageRun"], None]


@dataclass(frozen=True)
class StageRun:
    """One stage to run, for one source domain where the stage has one.

    Attributes:
        stage: name of the stage, such as `distill-source`.
        source: name of the source dataset, or None for stages shared by all sources.
        inputs: files and folders whose content the result depends on.
        params: keys of `params.yaml` that the result depends on.
        output: the folder that the stage writes.
    """

    stage: str
    source: str | None
    inputs: tuple[Path, ...]
    params: tuple[str, ...]
    output: Path

    @property
    def name(self) -> str:
        """Unique name, and the stage's name in `dvc.yaml`."""
        return self.stage if self.source is None else f"{self.stage}-{self.source}"

    @property
    def command(self) -> str:
        """The command line that runs it in the workspace."""
        return f"gkd run {self.stage}" if self.source is None else f"gkd run {self.stage} --source {self.source}"


def plan(settings: Settings) -> list[StageRun]:
    """The stages that these settings ask for, in the order in which they run."""
    raise NotImplementedError  # being written


def run_folder(settings: Settings, run: StageRun, workspace: Path) -> Path:
    """Where a stage keeps checkpoints and `metrics.jsonl`: `RUNS/<name>-<digest of its inputs>` in the workspace."""
    raise NotImplementedError  # being written


def run_stage(settings: Settings, run: StageRun, workspace: Path) -> None:
    """Run one stage in this process."""
    raise NotImplementedError  # being written
