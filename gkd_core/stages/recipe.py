"""The recipe: settings with their catalog, and what follows from both: the data that a run reads, and its stages in order.

`gkd run STAGE` runs one of the stages here; `dvc.yaml` is the plan rendered for DVC; the Prefect flow has DVC reproduce its
stages one by one. All paths are relative to the workspace, the folder that holds `params.yaml`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from gkd_core.data.catalog.load import Benchmark, Catalog, Domain, is_shipped, load_catalog
from gkd_core.data.catalog.sources import Source
from gkd_core.data.files.origin import Origin
from gkd_core.errors import DataError, SettingsError
from gkd_core.messages import shown
from gkd_core.methods import METHODS, method_of
from gkd_core.settings import PictureKind, Settings
from gkd_core.stages.facts import (
    BUNDLE,
    DISTILL_PROXY,
    DISTILL_SOURCE,
    EVALUATE,
    ILLUSTRATE,
    LEARN_TASK,
    MATRIX,
    PREPARE_DATA,
    STAGES,
)
from gkd_core.stages.origin import data_origin, label_names_file
from gkd_core.stages.run import StageRun

COMMON = ("recipe_version", "data.catalogs", "compute.device", "compute.threads")
DISTILLING = ("method", "seed", "teacher", "student", "data.streaming", "compute.workers")


@dataclass(frozen=True, eq=False)
class Recipe:
    """Settings and the catalog that they are read by; the rest is worked out once, where it is first asked for."""

    settings: Settings
    catalog: Catalog

    @classmethod
    def of(cls, settings: Settings) -> Recipe:
        """The recipe of these settings, with the catalog files that they name.

        Raises:
            DataError: a catalog file is missing or malformed.
        """
        return cls(settings, load_catalog(settings.data.catalogs))

    @cached_property
    def benchmarks(self) -> tuple[Benchmark, ...]:
        """The benchmarks that the settings name, in their order; `DataError` where one is unknown."""
        return tuple(self.catalog.benchmark(name) for name in self.settings.data.benchmarks)

    @cached_property
    def sources(self) -> dict[str, Source]:
        """What students learn from, by name, in the order of the benchmarks.

        Raises:
            DataError: two benchmarks have sources of one name that are not the same.
        """
        found: dict[str, Source] = {}
        for benchmark in self.benchmarks:
            source = found.setdefault(benchmark.source.name, benchmark.source)
            if source != benchmark.source:
                raise DataError(
                    f"benchmark '{benchmark.name}': learns from {benchmark.source}, another benchmark of the run from {source}; "
                    f"stages would call both '{source.name}': run them apart (data.benchmarks)"
                )
        return found

    @property
    def has_proxy_stage(self) -> bool:
        """Whether a distilled student goes through stage 1a: `distill_proxy.updates: 0` leaves it out (the paper's F2F)."""
        return self.settings.distill_proxy.updates != 0

    @cached_property
    def domains(self) -> list[Domain]:
        """Every domain that a run reads: proxy (where there is a stage 1a), sources, validation and targets."""
        # The proxy whatever the method, so that methods under comparison share one prepared data.
        proxy = [self.settings.data.proxy] if self.has_proxy_stage else []
        measured = [reference for source in self.sources for reference in self._measured_on(source)]
        return self._found([*proxy, *self._learnt_from(), *measured])

    @property
    def trained_domains(self) -> list[Domain]:
        """Every domain that a run learns from: proxy and sources."""
        return self._found([self.settings.data.proxy, *self._learnt_from()])

    def parts(self, source: str) -> list[Domain]:
        """The domains that a source mixes, one or more."""
        return self._found(self.sources[source].references)

    def measured_domains(self, source: str) -> list[Domain]:
        """Every domain that a source's student is measured on, its own validation split first."""
        return self._found(self._measured_on(source))

    def domains_read(self, run: StageRun) -> dict[str, str]:
        """Every `dataset/split` that a stage reads, with the parts that it plays: proxy, source, validation, target."""
        parts: dict[str, list[str]] = {}

        def note(part: str, references: Iterable[str]) -> None:
            for reference in references:
                parts.setdefault(reference, []).append(part)

        reads = STAGES[run.stage].reads
        if "proxy" in reads and self.has_proxy_stage:
            note("proxy", [self.settings.data.proxy])
        for name, source in self.sources.items():
            if "source" in reads and run.source in (None, name):
                note("source", (reference for reference in source.references if "source" not in parts.get(reference, ())))
        own = [benchmark for benchmark in self.benchmarks if run.source in (None, benchmark.source.name)]
        if "validation" in reads:
            note("validation", dict.fromkeys(benchmark.validation for benchmark in own))
        if "target" in reads:
            note("target", dict.fromkeys(target for benchmark in own for target in benchmark.targets.values()))
        return {reference: ", ".join(names) for reference, names in parts.items()}

    def origin(self, workspace: Path) -> Origin:
        """Where the datasets lie; paths of the settings are relative to the workspace."""
        return data_origin(self.settings, workspace)

    @cached_property
    def plan(self) -> tuple[StageRun, ...]:
        """The stages that the settings ask for, in the order in which they run.

        Raises:
            DataError: a dataset or benchmark that the settings name is unknown.
        """
        return tuple(_stages(self))

    def find(self, stage: str, source: str | None = None) -> StageRun:
        """One stage of the plan by name and source.

        Raises:
            SettingsError: the plan has no such stage; the message lists those it has.
        """
        for run in self.plan:
            if run.stage == stage and run.source == source:
                return run
        wanted = shown(stage if source is None else f"{stage} --source {source}")
        allowed = ", ".join(run.command.removeprefix("gkd run ") for run in self.plan)
        raise SettingsError(f"{wanted}: no such stage for method {self.settings.method}; there is: {allowed}")

    def _learnt_from(self) -> list[str]:
        return [reference for source in self.sources.values() for reference in source.references]

    def _measured_on(self, source: str) -> list[str]:
        own = [benchmark for benchmark in self.benchmarks if benchmark.source.name == source]
        targets = [target for benchmark in own for target in benchmark.targets.values()]
        return [*(benchmark.validation for benchmark in own), *targets]

    def _found(self, references: Iterable[str]) -> list[Domain]:
        """The domains of these names, each once."""
        return [self.catalog.domain(reference) for reference in dict.fromkeys(references)]


def picture_kinds(settings: Settings) -> tuple[PictureKind, ...]:
    """The kinds of pictures that are drawn: of those asked for, what the method has something to show for."""
    distillation = METHODS[settings.method].distillation
    shown = {"panel": True, "features": distillation is not None, "attention": distillation == "qsd"}
    return tuple(kind for kind in settings.illustrate.kinds if shown[kind] and settings.illustrate.images > 0)


def _stages(recipe: Recipe) -> Iterator[StageRun]:
    """A stage's place in the recipe: after what it reads."""
    distils = METHODS[recipe.settings.method].distillation is not None
    yield _prepare_data(recipe)
    if distils and recipe.has_proxy_stage:
        yield _distill_proxy(recipe)
    if distils:
        yield from (_distill_source(recipe, source) for source in recipe.sources)
    yield from (_learn_task(recipe, source) for source in recipe.sources)
    yield from (_evaluate(recipe, source) for source in recipe.sources)
    yield from (_bundle(recipe, source) for source in recipe.sources)
    if picture_kinds(recipe.settings):
        yield from (_illustrate(recipe, source) for source in recipe.sources)
    yield _report(recipe)


def _prepare_data(recipe: Recipe) -> StageRun:
    data, params = recipe.settings.data, ("recipe_version", "data")
    if data.shards_in_bucket:
        return StageRun(PREPARE_DATA.name, None, _own_files(recipe), params, PREPARE_DATA.output(), always=True)
    inputs: tuple[Path, ...] = ()
    if data.world is None:
        origin = recipe.origin(Path())
        inputs = (*dict.fromkeys(path for domain in recipe.domains for path in origin.inputs(domain)), *_own_files(recipe))
    return StageRun(PREPARE_DATA.name, None, inputs, params, PREPARE_DATA.output())


def _distill_proxy(recipe: Recipe) -> StageRun:
    field = recipe.settings.data.field
    joining = () if field is None else (Path(field),)
    inputs = (*_own_files(recipe), *_images(recipe, recipe.catalog.domain(recipe.settings.data.proxy)), *joining)
    # Where none join, the stage depends on what it did before there was such a setting.
    params = (*COMMON, *DISTILLING, *_elastic_params(recipe.settings), "data.proxy", *(("data.field",) if joining else ()),
              "distill_proxy")  # fmt: skip
    return StageRun(DISTILL_PROXY.name, None, inputs, params, DISTILL_PROXY.output())


def _distill_source(recipe: Recipe, source: str) -> StageRun:
    named = (("start", DISTILL_PROXY.output()),) if recipe.has_proxy_stage else ()
    inputs = (*_folders(named), *_own_files(recipe), *_of_parts(_images, recipe, source))
    params = (*COMMON, *DISTILLING, *_elastic_params(recipe.settings), *_weight_params(recipe, source), "distill_source")
    return StageRun(DISTILL_SOURCE.name, source, inputs, params, DISTILL_SOURCE.output(source), named=named)


def _learn_task(recipe: Recipe, source: str) -> StageRun:
    method = method_of(recipe.settings)
    named = (("student", DISTILL_SOURCE.output(source)),) if method.distillation else ()
    params = [*COMMON, *_weight_params(recipe, source), "method", "seed", "student", "data.streaming", "learn_task"]
    if method.encoder == "teacher" or method.joint_distillation:
        params.append("teacher")
    if not method.freeze_encoder:
        # Their budget is the sum of all stages' images.
        lengths = ("updates", "epochs", "batch_size")
        params += [f"{stage}.{key}" for stage in ("distill_proxy", "distill_source") for key in lengths]
    files = (*_of_parts(_images, recipe, source), *_of_parts(_labels, recipe, source))
    inputs = (*_folders(named), *_own_files(recipe), *files)
    return StageRun(LEARN_TASK.name, source, inputs, tuple(params), LEARN_TASK.output(source), named=named)


def _evaluate(recipe: Recipe, source: str) -> StageRun:
    named = (("segmentor", LEARN_TASK.output(source)),)
    inputs = (*_folders(named), *_own_files(recipe), *_measured_files(recipe, source))
    params = (*COMMON, "data.benchmarks", "method", "seed", "teacher", "student", "evaluate")
    return StageRun(EVALUATE.name, source, tuple(dict.fromkeys(inputs)), params, EVALUATE.output(source), named=named)


def _bundle(recipe: Recipe, source: str) -> StageRun:
    named = (("segmentor", LEARN_TASK.output(source)), ("scores", EVALUATE.output(source)))
    names = label_names_file(recipe.settings, recipe.parts(source)[0])  # no image and no label is looked at
    inputs = (*_folders(named), *_catalog_files(recipe), *(() if names is None else (names,)))
    licences = ("registry.student_licence", "registry.teacher_licence")
    params = ("recipe_version", "data.catalogs", "data.benchmarks", "compute.threads", "teacher", "evaluate", *licences)
    return StageRun(BUNDLE.name, source, inputs, params, BUNDLE.output(source), named=named)


def _illustrate(recipe: Recipe, source: str) -> StageRun:
    named: tuple[tuple[str, Path], ...] = (("segmentor", LEARN_TASK.output(source)),)
    inputs = (*_folders(named), *_own_files(recipe), *_measured_files(recipe, source))
    params: tuple[str, ...] = (*COMMON, "data.benchmarks", "method", "seed", "evaluate", "illustrate")
    if {"features", "attention"} & set(picture_kinds(recipe.settings)):
        distilled = DISTILL_SOURCE.output(source)
        named, inputs = (*named, ("distilled", distilled)), (*inputs, distilled)
        # The view that they are seen in, and the teacher on its grid; all else is in the student's record.
        params += ("teacher", *(f"distill_source.{key}" for key in ("image_size", "patch_size", "num_heads")))
    return StageRun(ILLUSTRATE.name, source, tuple(dict.fromkeys(inputs)), params, ILLUSTRATE.output(source), named=named)


def _report(recipe: Recipe) -> StageRun:
    scores = tuple(EVALUATE.output(source) for source in recipe.sources)
    return StageRun(MATRIX.name, None, scores, ("recipe_version", "data.benchmarks"), MATRIX.output())


def _folders(named: tuple[tuple[str, Path], ...]) -> tuple[Path, ...]:
    return tuple(folder for _, folder in named)


def _elastic_params(settings: Settings) -> tuple[str, ...]:
    """What decides how many workers there may be, where that is not one number."""
    return ("compute.max_workers",) if settings.compute.max_workers is not None else ()


def _weight_params(recipe: Recipe, source: str) -> tuple[str, ...]:
    """What decides a source's weights, where it states any: neither its name nor its files tell them."""
    weights = recipe.sources[source].parts.values()
    return ("data.benchmarks",) if any(weight is not None for weight in weights) else ()


def _of_parts(files: Callable[[Recipe, Domain], tuple[Path, ...]], recipe: Recipe, source: str) -> tuple[Path, ...]:
    """The files of every part of a source, each once."""
    return tuple(dict.fromkeys(path for domain in recipe.parts(source) for path in files(recipe, domain)))


def _measured_files(recipe: Recipe, source: str) -> tuple[Path, ...]:
    """Images and labels of every domain that a source's student is measured on."""
    domains = recipe.measured_domains(source)
    return tuple(path for domain in domains for files in (_images, _labels) for path in files(recipe, domain))


def _images(recipe: Recipe, domain: Domain) -> tuple[Path, ...]:
    # Lists that come with a shipped catalog are code like the catalog itself (`recipe_version` stands for them), and they lie
    # elsewhere in each environment: named here, a result would be known in one environment only.
    return tuple(path for path in recipe.origin(Path()).image_inputs(domain) if not is_shipped(path))


def _labels(recipe: Recipe, domain: Domain) -> tuple[Path, ...]:
    return tuple(recipe.origin(Path()).label_inputs(domain))


def _own_files(recipe: Recipe) -> tuple[Path, ...]:
    """Files that the settings name by path, whose content the results depend on: catalogs and weights."""
    weights = [encoder.weights_file for encoder in (recipe.settings.teacher, recipe.settings.student)]
    return (*_catalog_files(recipe), *(file for file in weights if file is not None))


def _catalog_files(recipe: Recipe) -> tuple[Path, ...]:
    return tuple(Path(name) for name in recipe.settings.data.catalogs if name.endswith((".yaml", ".yml")))
