"""How long a stage is, so that whoever watches it can say how much is left."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from gkd_core.data.files.folders import field_images
from gkd_core.methods import task_updates
from gkd_core.paths import DATA
from gkd_core.records import MANIFEST, DataManifest
from gkd_core.stages.facts import DISTILL_PROXY, STAGES, Unit
from gkd_core.stages.recipe import Recipe
from gkd_core.stages.run import StageRun


@dataclass(frozen=True)
class Length:
    """The steps of a stage, as its `metrics.jsonl` counts them."""

    total: int
    unit: Unit


def length_of(recipe: Recipe, run: StageRun, workspace: Path) -> Length | None:
    """The length of a stage whose data are prepared; None for one that has no steps.

    Raises:
        GkdError: `prepare-data` has left no record.
    """
    stage, settings = STAGES[run.stage], recipe.settings
    if stage.unit is None:
        return None
    if not stage.distills and stage.trains:
        return Length(task_updates(settings), stage.unit)
    manifest = DataManifest.read(workspace / DATA / MANIFEST)
    images = {f"{version.dataset}/{version.split}": version.images for version in manifest.versions}
    if stage is DISTILL_PROXY:
        field = settings.data.field
        joined = 0 if field is None else len(field_images(workspace / field))
        return Length(settings.distill_proxy.updates_for(images[settings.data.proxy] + joined), stage.unit)
    if not stage.trains:
        return Length(sum(images[domain.reference] for domain in recipe.measured_domains(str(run.source))), stage.unit)
    learnt = sum(images[domain.reference] for domain in recipe.parts(str(run.source)))
    return Length(settings.distill_source.updates_for(learnt), stage.unit)
