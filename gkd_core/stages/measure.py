"""A segmentor that is there already, measured on chosen domains: what `evaluate` does in the recipe, without the recipe."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from gkd_core.evaluate.places import Place, places
from gkd_core.paths import RUNS, SCORES
from gkd_core.records import MANIFEST, SegmentorCheckpoint
from gkd_core.settings import Settings
from gkd_core.settings.encoder import MLFLOW_SCHEMES
from gkd_core.stages.facts import EVALUATE
from gkd_core.stages.recipe import Recipe
from gkd_core.stages.run import StageRun
from gkd_core.stages.work import Context
from gkd_core.untrusted import given_path

NO_TEACHER = "none"  # in the place of a teacher's name


def segmentor_folder(model: str, settings: Settings, project: Path) -> Path:
    """The folder of a segmentor, safetensors and manifest: one on this machine, or fetched by its MLflow address.

    Args:
        model: a folder, or `models:/NAME@ALIAS`, `models:/NAME/VERSION`, `models:/m-ID`, `runs:/RUN/MODEL`.

    Raises:
        WeightsError: there is no such model at the MLflow address.
        PlatformError: there is no MLflow store.
        GkdError: the folder is not a segmentor's.
    """
    if model.startswith(MLFLOW_SCHEMES):
        from gkd_core.storage.mlflow_store import existing_store
        from gkd_core.storage.mlflow_weights import fetch_segmentor

        address = existing_store(settings.tracking.uri, project)
        return fetch_segmentor(model, address, (project / RUNS).resolve() / "weights")
    folder = given_path(project / model)
    SegmentorCheckpoint.read(folder / MANIFEST)
    return folder


def measure_run(folder: Path, output: Path) -> StageRun:
    """The measuring of a segmentor, in the form of a stage, by which its run folder is named."""
    params = (str(EVALUATE.section), "data.benchmarks")
    return StageRun("measure", None, (folder,), params, output, named=(("segmentor", folder),))


def chosen_places(recipe: Recipe, folder: Path, domains: Sequence[str]) -> list[Place]:
    """Where a segmentor is to be measured; see `places`."""
    return places(recipe.catalog, recipe.settings.data.benchmarks, SegmentorCheckpoint.read(folder / MANIFEST), domains)


def measure_on(context: Context, domains: Sequence[str]) -> None:
    """Measure a segmentor on domains and write the report, with `scores.json`, to the context's output.

    Raises:
        DataError: a domain is unknown, is not here, or has other classes than the model.
    """
    import torch

    from gkd_core.files import atomic_folder
    from gkd_core.records import ScoreTable
    from gkd_core.reports.report import write_report
    from gkd_core.stages.evaluate import confusions_on, score

    torch.set_num_threads(context.settings.compute.threads)
    folder = context.run.input("segmentor")
    record = SegmentorCheckpoint.read(folder / MANIFEST)
    chosen = chosen_places(context.recipe, folder, domains)
    found = [context.domain(reference) for reference in dict.fromkeys(place.reference for place in chosen)]
    matrices = confusions_on(context, folder, found, len(record.classes))
    teacher = record.teacher or NO_TEACHER
    table = ScoreTable(scores=tuple(score(context, place, matrices[place.reference], record, teacher) for place in chosen))
    with atomic_folder(context.output) as target:
        table.write(target / SCORES)
        write_report(table, target)
