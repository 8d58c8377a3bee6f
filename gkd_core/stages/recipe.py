"""The recipe: every stage declared once, with what it reads, what it writes and what its result depends on.

`gkd run STAGE` runs one of them here; `dvc.yaml` is this list rendered for DVC; the Prefect flow has DVC reproduce
them one by one. All paths are relative to the workspace, the folder that holds `params.yaml`.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from gkd_core.data.catalog import Benchmark, Catalog, is_shipped, load_catalog
from gkd_core.data.origin import Folders, LocalSets, Origin, Shards
from gkd_core.data.sources import Source
from gkd_core.errors import DataError, SettingsError
from gkd_core.methods import METHODS, method_of
from gkd_core.records import sha256_of
from gkd_core.settings import PictureKind, Settings
from gkd_core.stages.attempt import attempt
from gkd_core.untrusted import shown

if TYPE_CHECKING:
    from gkd_core.adapters.s3.sets import S3Sets

ARTIFACTS = Path("artifacts")
DATA = ARTIFACTS / "data"
DISTILLED = ARTIFACTS / "distill-proxy"  # what stage 1a leaves for 1b
RUNS = ARTIFACTS / "runs"  # checkpoints and step metrics of unfinished work; not an output
REPORT = ARTIFACTS / "report"
SCORES = "scores.json"
PICTURES = "pictures.json"
SIZE = "student.json"  # in the run folder of `evaluate`: what the student takes

# Stage to the module of this package, and the function in it, that does its work.
FUNCTIONS = {
    "prepare-data": ("prepare_data", "prepare_data"),
    "distill-proxy": ("distill", "distill_proxy"),
    "distill-source": ("distill", "distill_source"),
    "learn-task": ("learn_task", "learn_task"),
    "evaluate": ("evaluate", "evaluate"),
    "illustrate": ("illustrate", "illustrate"),
    "report": ("report", "report"),
}

COMMON = ("recipe_version", "data.catalogs", "compute.device", "compute.threads")
DISTILLING = ("method", "seed", "teacher", "student", "data.streaming", "compute.workers")


@dataclass(frozen=True)
class StageRun:
    """One stage to run, for one source domain where the stage has one.

    Attributes:
        stage: name of the stage, such as `distill-source`.
        source: name of the source dataset, or None for stages shared by all sources.
        inputs: files and folders whose content the result depends on.
        params: keys of `params.yaml` that the result depends on.
        output: the folder that the stage writes.
        always: it looks at what nobody here can see change, a bucket, and so it runs each time; what depends on it does not,
            where it leaves the same.
    """

    stage: str
    source: str | None
    inputs: tuple[Path, ...]
    params: tuple[str, ...]
    output: Path
    always: bool = False

    @property
    def name(self) -> str:
        """Unique name, and the stage's name in `dvc.yaml`."""
        return self.stage if self.source is None else f"{self.stage}-{self.source}"

    @property
    def command(self) -> str:
        """The command line that runs it in the workspace."""
        return shlex.join(["gkd", "run", self.stage, *(() if self.source is None else ("--source", self.source))])


@dataclass(frozen=True)
class Context:
    """What every stage function is given."""

    settings: Settings
    catalog: Catalog
    run: StageRun
    workspace: Path

    @property
    def origin(self) -> Origin:
        """Where the datasets lie, by absolute paths."""
        return data_origin(self.settings, self.workspace)

    @property
    def output(self) -> Path:
        """Absolute folder that the stage writes."""
        return self.workspace / self.run.output

    @property
    def run_folder(self) -> Path:
        """Absolute folder of the stage's checkpoints and step metrics."""
        return run_folder(self.settings, self.run, self.workspace)


StageFunction = Callable[[Context], None]


def data_root(settings: Settings) -> Path:
    """The folder that the datasets lie in as they unpack: the rendered world, or the user's own.

    Raises:
        SettingsError: the settings name shards.
    """
    if settings.data.shards is not None:
        raise SettingsError("data.shards: this needs the datasets as they unpack; set data.root, and data.shards to null")
    return DATA if settings.data.root is None else Path(settings.data.root)


def data_origin(settings: Settings, workspace: Path) -> Origin:
    """Where the datasets lie, in folders or in shards; paths of the settings are relative to the workspace."""
    if settings.data.shards_in_bucket:
        return Shards(bucket_sets(settings, workspace / DATA))
    if settings.data.shards is not None:
        return Shards(LocalSets(workspace / settings.data.shards))
    return Folders(workspace / data_root(settings))


def bucket_sets(settings: Settings, indexes: Path) -> S3Sets:
    """The shards of a bucket; `indexes` is the folder of the copies of their indexes, which `prepare-data` makes."""
    from gkd_core.adapters.s3.keys import Location
    from gkd_core.adapters.s3.sets import S3Sets

    compute = settings.compute
    return S3Sets(Location.parse(str(settings.data.shards)), indexes, compute.shard_cache, compute.shard_cache_bytes)


def benchmarks(settings: Settings, catalog: Catalog) -> list[Benchmark]:
    """The benchmarks that the settings name, in their order."""
    return [catalog.benchmark(name) for name in settings.data.benchmarks]


def sources(settings: Settings, catalog: Catalog) -> dict[str, Source]:
    """What students learn from, by name, in the order of the benchmarks.

    Raises:
        DataError: two benchmarks have sources of one name that are not the same.
    """
    found: dict[str, Source] = {}
    for benchmark in benchmarks(settings, catalog):
        source = found.setdefault(benchmark.source.name, benchmark.source)
        if source != benchmark.source:
            raise DataError(
                f"benchmark '{benchmark.name}': learns from {benchmark.source}, another benchmark of the run from {source}; "
                f"stages would call both '{source.name}': run them apart (data.benchmarks)"
            )
    return found


def domains_of(settings: Settings, catalog: Catalog, source: str) -> list[str]:
    """Every `dataset/split` that a source's student is measured on, its own validation split first."""
    own = [benchmark for benchmark in benchmarks(settings, catalog) if benchmark.source.name == source]
    references = [benchmark.validation for benchmark in own] + [
        target for benchmark in own for target in benchmark.targets.values()
    ]
    return list(dict.fromkeys(references))


def all_domains(settings: Settings, catalog: Catalog) -> list[str]:
    """Every `dataset/split` that a run reads: proxy (where there is a stage 1a), sources, validation and targets."""
    learnt = sources(settings, catalog)
    measured = [reference for source in learnt for reference in domains_of(settings, catalog, source)]
    parts = [reference for source in learnt.values() for reference in source.references]
    # Whatever the method, so that methods under comparison share one prepared data.
    proxy = [settings.data.proxy] if has_proxy_stage(settings) else []
    return list(dict.fromkeys([*proxy, *parts, *measured]))


def trained_domains(settings: Settings, catalog: Catalog) -> list[str]:
    """Every `dataset/split` that a run learns from: proxy and sources."""
    parts = [reference for source in sources(settings, catalog).values() for reference in source.references]
    return [settings.data.proxy, *parts]


def has_proxy_stage(settings: Settings) -> bool:
    """Whether a distilled student goes through stage 1a: `distill_proxy.updates: 0` leaves it out (the paper's F2F)."""
    return settings.distill_proxy.updates != 0


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


def params_of(settings: Settings, run: StageRun) -> dict[str, object]:
    """The settings that a stage's result depends on, as plain values by their keys in `params.yaml`."""
    tree = settings.model_dump(mode="json")
    return {key: _lookup(tree, key) for key in run.params}


def run_folder(settings: Settings, run: StageRun, workspace: Path) -> Path:
    """Where a stage keeps checkpoints and `metrics.jsonl`: `RUNS/<name>-<digest of its inputs>`, absolute.

    The digest covers the stage's settings, the content of files among its inputs (weights, catalogs, lists) and of records
    in its input folders (a manifest states the digest of the weights beside it), and the names and sizes of all else in
    those folders, so that a stopped run is found again only by its equal.
    """
    facts = {"params": params_of(settings, run), "inputs": [_listing(workspace / path) for path in run.inputs]}
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]
    return (workspace / RUNS).resolve() / f"{run.name}-{digest}"


def run_stage(settings: Settings, run: StageRun, workspace: Path) -> None:
    """Run one stage in this process; what a killed attempt left half-written goes first, what it costs is noted.

    Raises:
        GkdError: whatever the user has to mend; nothing is left under the output's name then.
    """
    context = Context(settings, load_catalog(settings.data.catalogs), run, workspace.resolve())
    with attempt(context.run_folder, context.output):
        _function(run.stage)(context)


def _function(stage: str) -> StageFunction:
    """The stage's function; its module is imported only now, so that no process loads what another stage needs."""
    module, name = FUNCTIONS[stage]
    function: StageFunction = getattr(importlib.import_module(f"gkd_core.stages.{module}"), name)
    return function


def _prepare_data(settings: Settings, catalog: Catalog) -> StageRun:
    if settings.data.shards_in_bucket:
        return StageRun("prepare-data", None, _own_files(settings), ("recipe_version", "data"), DATA, always=True)
    inputs: tuple[Path, ...] = ()
    if settings.data.world is None:
        origin = data_origin(settings, Path())
        folders = [path for reference in all_domains(settings, catalog) for path in origin.inputs(*catalog.domain(reference))]
        inputs = (*dict.fromkeys(folders), *_own_files(settings))
    return StageRun("prepare-data", None, inputs, ("recipe_version", "data"), DATA)


def _distill_proxy(settings: Settings, catalog: Catalog) -> StageRun:
    inputs = (*_own_files(settings), *_images(settings, catalog, settings.data.proxy))
    params = (*COMMON, *DISTILLING, *_elastic_params(settings), "data.proxy", "distill_proxy")
    return StageRun("distill-proxy", None, inputs, params, DISTILLED)


def _distill_source(settings: Settings, catalog: Catalog, source: str) -> StageRun:
    start = (DISTILLED,) if has_proxy_stage(settings) else ()
    inputs = (*start, *_own_files(settings), *_of_parts(_images, settings, catalog, source))
    weights = _weight_params(settings, catalog, source)
    params = (*COMMON, *DISTILLING, *_elastic_params(settings), *weights, "distill_source")
    return StageRun("distill-source", source, inputs, params, ARTIFACTS / "distill-source" / source)


def _learn_task(settings: Settings, catalog: Catalog, source: str) -> StageRun:
    method = method_of(settings)
    inputs = (ARTIFACTS / "distill-source" / source,) if method.distillation else ()
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
        "learn-task",
        source,
        (*inputs, *_own_files(settings), *files),
        tuple(params),
        ARTIFACTS / "learn-task" / source,
    )


def _evaluate(settings: Settings, catalog: Catalog, source: str) -> StageRun:
    inputs = (ARTIFACTS / "learn-task" / source, *_own_files(settings), *_measured_files(settings, catalog, source))
    params = (*COMMON, "data.benchmarks", "method", "seed", "teacher", "student", "evaluate")
    return StageRun("evaluate", source, tuple(dict.fromkeys(inputs)), params, ARTIFACTS / "evaluate" / source)


def _illustrate(settings: Settings, catalog: Catalog, source: str) -> StageRun:
    inputs = (ARTIFACTS / "learn-task" / source, *_own_files(settings), *_measured_files(settings, catalog, source))
    params: tuple[str, ...] = (*COMMON, "data.benchmarks", "method", "seed", "evaluate", "illustrate")
    if {"features", "attention"} & set(picture_kinds(settings)):
        inputs += (ARTIFACTS / "distill-source" / source,)
        # The view that they are seen in, and the teacher on its grid; all else is in the student's record.
        params += ("teacher", *(f"distill_source.{key}" for key in ("image_size", "patch_size", "num_heads")))
    return StageRun("illustrate", source, tuple(dict.fromkeys(inputs)), params, ARTIFACTS / "illustrate" / source)


def _report(names: list[str]) -> StageRun:
    return StageRun(
        "report", None, tuple(ARTIFACTS / "evaluate" / source for source in names), ("recipe_version", "data.benchmarks"), REPORT
    )


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


def _lookup(tree: object, dotted: str) -> object:
    for part in dotted.split("."):
        tree = tree[part] if isinstance(tree, dict) else None
    return tree


def _listing(path: Path) -> list[list[object]]:
    """Names of the files at a path, each with its size, or its digest where it is a record or the path itself."""
    if path.is_file():
        return [["", sha256_of(path)]]
    return [[item.relative_to(path).as_posix(), _fact(item)] for item in sorted(path.rglob("*")) if item.is_file()]


def _fact(file: Path) -> object:
    if file.suffix == ".json":
        return sha256_of(file)
    return file.stat().st_size
