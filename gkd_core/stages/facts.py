"""The table of stages: what each is, said once. Plans, progress, costs, flows and the registry read it here.

A further stage is one entry here, one function in a module of this package, and its place in the plan (`recipe.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from gkd_core.paths import ARTIFACTS, DATA, REPORT
from gkd_core.settings import Settings

Part = Literal["proxy", "source", "validation", "target"]
Unit = Literal["updates", "images"]


@dataclass(frozen=True, eq=False)
class Stage:
    """One stage of the recipe.

    Attributes:
        name: in commands, `dvc.yaml`, folders and MLflow.
        work: the module of this package and the function in it that does its work.
        per_source: it runs once for each source; else once a run.
        reads: the parts that the datasets it reads play.
        inputs: what it calls the folders of earlier stages that it reads, where it has them: `run.input("student")`.
        section: the section of the settings that it is run by.
        trains: it has a loop with checkpoints.
        distills: it belongs to stage one: it needs no label, and gives a student that a later stage continues from.
        on_ray: whether its work is done by Ray's workers, which have the cluster to themselves.
        unit: what its progress is counted in, by its `metrics.jsonl`.
        retells: it only says anew what earlier stages have found, so that nothing it depends on decides a student or its scores.
        folder: its output, or the folder that has one for each source.
    """

    name: str
    work: tuple[str, str]
    reads: tuple[Part, ...]
    folder: Path
    per_source: bool = False
    inputs: tuple[str, ...] = ()
    section: str | None = None
    trains: bool = False
    distills: bool = False
    on_ray: Callable[[Settings], bool] = lambda settings: False
    unit: Unit | None = None
    retells: bool = False

    def output(self, source: str | None = None) -> Path:
        """The folder that it writes, relative to the workspace."""
        return self.folder if source is None else self.folder / source


PREPARE_DATA = Stage(
    "prepare-data", ("prepare_data", "prepare_data"), ("proxy", "source", "validation", "target"), DATA, section="data"
)
DISTILL_PROXY = Stage(
    "distill-proxy",
    ("distill", "distill_proxy"),
    ("proxy",),
    ARTIFACTS / "distill-proxy",
    section="distill_proxy",
    trains=True,
    distills=True,
    on_ray=lambda settings: True,
    unit="updates",
)
DISTILL_SOURCE = Stage(
    "distill-source",
    ("distill", "distill_source"),
    ("source",),
    ARTIFACTS / "distill-source",
    per_source=True,
    inputs=("start",),
    section="distill_source",
    trains=True,
    distills=True,
    on_ray=lambda settings: True,
    unit="updates",
)
LEARN_TASK = Stage(
    "learn-task",
    ("learn_task", "learn_task"),
    ("source",),
    ARTIFACTS / "learn-task",
    per_source=True,
    inputs=("student",),
    section="learn_task",
    trains=True,
    unit="updates",
)
EVALUATE = Stage(
    "evaluate",
    ("evaluate", "evaluate"),
    ("validation", "target"),
    ARTIFACTS / "evaluate",
    per_source=True,
    inputs=("segmentor",),
    section="evaluate",
    on_ray=lambda settings: settings.evaluate.workers > 0,
    unit="images",
)
# After `evaluate`, as manifest and card tell the scores. A stage of its own: new scores or a licence make no student anew.
BUNDLE = Stage(
    "bundle",
    ("bundle", "bundle"),
    (),
    ARTIFACTS / "bundle",
    per_source=True,
    inputs=("segmentor", "scores"),
    retells=True,
)
ILLUSTRATE = Stage(
    "illustrate",
    ("illustrate", "illustrate"),
    ("validation", "target"),
    ARTIFACTS / "illustrate",
    per_source=True,
    inputs=("segmentor", "distilled"),
    section="illustrate",
)
MATRIX = Stage("report", ("report", "report"), (), REPORT)

STAGES = {
    stage.name: stage for stage in (PREPARE_DATA, DISTILL_PROXY, DISTILL_SOURCE, LEARN_TASK, EVALUATE, BUNDLE, ILLUSTRATE, MATRIX)
}
"""Every stage by its name, in the order of the recipe."""


def names_where(holds: Callable[[Stage], bool]) -> tuple[str, ...]:
    """Names of the stages of which something holds, in the order of the recipe."""
    return tuple(name for name, stage in STAGES.items() if holds(stage))
