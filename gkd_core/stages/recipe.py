"""The recipe: every stage declared once, with what it reads, what it writes and what its result depends on.

`gkd run STAGE` runs one of them here; `dvc.yaml` is this list rendered for DVC; the Prefect flow has DVC reproduce
them one by one. All paths are relative to the workspace, the folder that holds `params.yaml`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from gkd_core.data.catalog.load import Catalog, is_shipped, load_catalog
from gkd_core.errors import SettingsError
from gkd_core.messages import shown
from gkd_core.methods import METHODS, method_of
from gkd_core.settings import PictureKind, Settings
from gkd_core.stages.domains import all_domains, domains_of, has_proxy_stage, sources
from gkd_core.stages.facts import (
    DISTILL_PROXY,
    DISTILL_SOURCE,
    EVALUATE,
    ILLUSTRATE,
    LEARN_TASK,
    MATRIX,
    PREPARE_DATA,
)
from gkd_core.stages.origin import data_origin
from gkd_core.stages.run import StageRun

COMMON = ("recipe_version", "data.catalogs", "compute.device", "compute.threads")
DISTILLING = ("method", "seed", "teacher", "student", "data.streaming", "compute.workers")


def picture_kinds(settings: Settings) -> tuple[PictureKind, ...]:
    """The kinds of pictures that are drawn: of those asked for, what the method has something to show for."""
    distillation = METHODS[settings.method].distillation
    shown = {"panel": True, "features": distillation is not None, "attention": distillation == "qsd"}
    return tuple(kind for kind in settings.illustrate.kinds if shown[kind] and settings.illustrate.images > 0)


def plan(settings: Settings, catalog: Catalog | None = None) -> list[StageRun]:
    """The stages that these settings ask for, in the order in which they run.

    Raises:
        DataError: a dataset or benchmark that the settings name is unknown.
    """
    catalog = catalog or load_catalog(settings.data.catalogs)
    names = list(sources(settings, catalog))
    distils = METHODS[settings.method].distillation is not None
    runs = [_prepare_data(settings, catalog)]
    if distils and has_proxy_stage(settings):
        runs.append(_distill_proxy(settings, catalog))
    if distils:
        runs += [_distill_source(settings, catalog, source) for source in names]
    runs += [_learn_task(settings, catalog, source) for source in names]
    runs += [_evaluate(settings, catalog, source) for source in names]
    if picture_kinds(settings):
        runs += [_illustrate(settings, catalog, source) for source in names]
    return [*runs, _report(names)]


def find_run(settings: Settings, stage: str, source: str | None) -> StageRun:
    """One stage of the plan by name and source.

    Raises:
        SettingsError: the plan has no such stage; the message lists those it has.
    """
    runs = plan(settings)
    for run in runs:
        if run.stage == stage and run.source == source:
            return run
    wanted = shown(stage if source is None else f"{stage} --source {source}")
    allowed = ", ".join(run.command.removeprefix("gkd run ") for run in runs)
    raise SettingsError(f"{wanted}: no such stage for method {settings.method}; there is: {allowed}")


def _prepare_data(settings: Settings, catalog: Catalog) -> StageRun:
    if settings.data.shards_in_bucket:
        return StageRun(
            PREPARE_DATA.name, None, _own_files(settings), ("recipe_version", "data"), PREPARE_DATA.output(), always=True
        )
    inputs: tuple[Path, ...] = ()
    if settings.data.world is None:
        origin = data_origin(settings, Path())
        folders = [path for reference in all_domains(settings, catalog) for path in origin.inputs(*catalog.domain(reference))]
        inputs = (*dict.fromkeys(folders), *_own_files(settings))
    return StageRun(PREPARE_DATA.name, None, inputs, ("recipe_version", "data"), PREPARE_DATA.output())


def _distill_proxy(settings: Settings, catalog: Catalog) -> StageRun:
    inputs = (*_own_files(settings), *_images(settings, catalog, settings.data.proxy))
    params = (*COMMON, *DISTILLING, *_elastic_params(settings), "data.proxy", "distill_proxy")
    return StageRun(DISTILL_PROXY.name, None, inputs, params, DISTILL_PROXY.output())


def _distill_source(settings: Settings, catalog: Catalog, source: str) -> StageRun:
    named = (("start", DISTILL_PROXY.output()),) if has_proxy_stage(settings) else ()
    inputs = (*_folders(named), *_own_files(settings), *_of_parts(_images, settings, catalog, source))
    weights = _weight_params(settings, catalog, source)
    params = (*COMMON, *DISTILLING, *_elastic_params(settings), *weights, "distill_source")
    return StageRun(DISTILL_SOURCE.name, source, inputs, params, DISTILL_SOURCE.output(source), named=named)


def _learn_task(settings: Settings, catalog: Catalog, source: str) -> StageRun:
    method = method_of(settings)
    named = (("student", DISTILL_SOURCE.output(source)),) if method.distillation else ()
    weights = _weight_params(settings, catalog, source)
    params = [*COMMON, *weights, "method", "seed", "student", "data.streaming", "learn_task"]
    if method.encoder == "teacher" or method.joint_distillation:
        params.append("teacher")
    if not method.freeze_encoder:
        # Their budget is the sum of all stages' images.
        lengths = ("updates", "epochs", "batch_size")
        params += [f"{stage}.{key}" for stage in ("distill_proxy", "distill_source") for key in lengths]
    files = (*_of_parts(_images, settings, catalog, source), *_of_parts(_labels, settings, catalog, source))
    return StageRun(
        LEARN_TASK.name,
        source,
        (*_folders(named), *_own_files(settings), *files),
        tuple(params),
        LEARN_TASK.output(source),
        named=named,
    )


def _evaluate(settings: Settings, catalog: Catalog, source: str) -> StageRun:
    named = (("segmentor", LEARN_TASK.output(source)),)
    inputs = (*_folders(named), *_own_files(settings), *_measured_files(settings, catalog, source))
    params = (*COMMON, "data.benchmarks", "method", "seed", "teacher", "student", "evaluate")
    return StageRun(EVALUATE.name, source, tuple(dict.fromkeys(inputs)), params, EVALUATE.output(source), named=named)


def _illustrate(settings: Settings, catalog: Catalog, source: str) -> StageRun:
    named: tuple[tuple[str, Path], ...] = (("segmentor", LEARN_TASK.output(source)),)
    inputs = (*_folders(named), *_own_files(settings), *_measured_files(settings, catalog, source))
    params: tuple[str, ...] = (*COMMON, "data.benchmarks", "method", "seed", "evaluate", "illustrate")
    if {"features", "attention"} & set(picture_kinds(settings)):
        distilled = DISTILL_SOURCE.output(source)
        named, inputs = (*named, ("distilled", distilled)), (*inputs, distilled)
        # The view that they are seen in, and the teacher on its grid; all else is in the student's record.
        params += ("teacher", *(f"distill_source.{key}" for key in ("image_size", "patch_size", "num_heads")))
    return StageRun(ILLUSTRATE.name, source, tuple(dict.fromkeys(inputs)), params, ILLUSTRATE.output(source), named=named)


def _report(names: list[str]) -> StageRun:
    scores = tuple(EVALUATE.output(source) for source in names)
    return StageRun(MATRIX.name, None, scores, ("recipe_version", "data.benchmarks"), MATRIX.output())


def _folders(named: tuple[tuple[str, Path], ...]) -> tuple[Path, ...]:
    return tuple(folder for _, folder in named)


def _elastic_params(settings: Settings) -> tuple[str, ...]:
    """What decides how many workers there may be, where that is not one number."""
    return ("compute.max_workers",) if settings.compute.max_workers is not None else ()


def _weight_params(settings: Settings, catalog: Catalog, source: str) -> tuple[str, ...]:
    """What decides a source's weights, where it states any: neither its name nor its files tell them."""
    weights = sources(settings, catalog)[source].parts.values()
    return ("data.benchmarks",) if any(weight is not None for weight in weights) else ()


def _of_parts(
    files: Callable[[Settings, Catalog, str], tuple[Path, ...]], settings: Settings, catalog: Catalog, source: str
) -> tuple[Path, ...]:
    """The files of every part of a source, each once."""
    parts = sources(settings, catalog)[source].references
    return tuple(dict.fromkeys(path for reference in parts for path in files(settings, catalog, reference)))


def _measured_files(settings: Settings, catalog: Catalog, source: str) -> tuple[Path, ...]:
    """Images and labels of every domain that a source's student is measured on."""
    references = domains_of(settings, catalog, source)
    return tuple(path for reference in references for files in (_images, _labels) for path in files(settings, catalog, reference))


def _images(settings: Settings, catalog: Catalog, reference: str) -> tuple[Path, ...]:
    # Lists that come with a shipped catalog are code like the catalog itself (`recipe_version` stands for them), and they lie
    # elsewhere in each environment: named here, a result would be known in one environment only.
    files = data_origin(settings, Path()).image_inputs(*catalog.domain(reference))
    return tuple(path for path in files if not is_shipped(path))


def _labels(settings: Settings, catalog: Catalog, reference: str) -> tuple[Path, ...]:
    return tuple(data_origin(settings, Path()).label_inputs(*catalog.domain(reference)))


def _own_files(settings: Settings) -> tuple[Path, ...]:
    """Files that the settings name by path, whose content the results depend on: catalogs and weights."""
    catalogs = [Path(name) for name in settings.data.catalogs if name.endswith((".yaml", ".yml"))]
    weights = [encoder.weights_file for encoder in (settings.teacher, settings.student)]
    return (*catalogs, *(file for file in weights if file is not None))


