"""The students of finished runs, put into the registry: found in MLflow by their digest, or logged again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mlflow.entities import Run
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from gkd_core.errors import PlatformError
from gkd_core.methods import METHODS
from gkd_core.models.licences import UNKNOWN_LICENCE, weights_licence
from gkd_core.models.tensor_files import read_tensors
from gkd_core.paths import PARAMS, SCORES
from gkd_core.records import MANIFEST, EncoderCheckpoint, ScoreTable, SegmentorCheckpoint
from gkd_core.registry.field import register_known
from gkd_core.registry.gate import SeedScores, Standing
from gkd_core.registry.model_card import DataUse, ModelFacts
from gkd_core.registry.served_student import BUNDLE
from gkd_core.registry.versions import SHA256_TAG, Registry, Student
from gkd_core.settings import Settings, load_settings
from gkd_core.stages import Recipe, StageRun
from gkd_core.stages.bundle import size_of
from gkd_core.stages.example import source_example
from gkd_core.stages.facts import EVALUATE, LEARN_TASK, PREPARE_DATA, STAGES
from gkd_core.stages.fingerprint import Fingerprint, fingerprint_of
from gkd_core.storage.model_files import recorded
from gkd_core.tracking.flow_runs import FLOW_RUN_TAG, Tracking
from gkd_core.versioning.fingerprint_now import loose_inputs, pin_digests
from gkd_core.versioning.pinned_inputs import RECORD
from gkd_core.versioning.pins import PinnedInputs
from gkd_core.versioning.recipe import input_digests
from gkd_core.versioning.workspace import WORKSPACES


@dataclass(frozen=True)
class FinishedRun:
    """A flow run that has ended well: its recipe (paths absolute), its workspace and its MLflow run."""

    recipe: Recipe
    workspace: Path
    run: Run

    @property
    def settings(self) -> Settings:
        """The recipe's settings."""
        return self.recipe.settings

    @property
    def project(self) -> Path:
        """The project that the workspace belongs to."""
        return self.workspace.parents[len(WORKSPACES.parts)]


def finished_run(tracking: Tracking, workspace: Path, run_id: str) -> FinishedRun:
    """A run by the id of its MLflow run and its workspace.

    Raises:
        PlatformError: there is no such run, or it has not ended well.
    """
    run = _mlflow_run(tracking, run_id)
    if run.info.status != "FINISHED":
        raise PlatformError(f"run {run_id}: its status is {run.info.status}; only the students of a FINISHED run are registered")
    return FinishedRun(Recipe.of(load_settings(workspace / PARAMS)), workspace, run)


def workspace_of(tracking: Tracking, project: Path, run_id: str) -> Path:
    """The workspace of a flow run, by the id of its MLflow run.

    Raises:
        PlatformError: there is no such run, it is no flow run, or its workspace was swept.
    """
    flow_run = _mlflow_run(tracking, run_id).data.tags.get(FLOW_RUN_TAG)
    if flow_run is None:
        raise PlatformError(f"run {run_id}: not the run of a flow (no tag {FLOW_RUN_TAG}); give the parent run of a pipeline")
    found = sorted((project / WORKSPACES).glob(f"*{flow_run[:8]}*"))
    if not found:
        raise PlatformError(
            f"run {run_id}: its workspace in {project / WORKSPACES} is gone; run the flow again with the same settings "
            "(everything is restored from DVC's cache) and register that run"
        )
    return found[-1]


def _mlflow_run(tracking: Tracking, run_id: str) -> Run:
    try:
        return tracking.client.get_run(run_id)
    except MlflowException:
        raise PlatformError(f"run {run_id}: not in the MLflow store {tracking.address}; take its id from MLflow's page") from None


def run_fingerprint(run: FinishedRun) -> Fingerprint:
    """The fingerprint of a finished run: its settings, its pins, and DVC's digests of what has none."""
    return fingerprint_of(run.recipe, {**pin_digests(_pinned(run)), **_unpinned(run)})


def register_students(registry: Registry, tracking: Tracking, runs: Sequence[FinishedRun]) -> dict[str, list[ModelVersion]]:
    """Register every student of runs that differ in their seed alone, each as a version.

    Returns:
        the versions by source, the best of the source's own validation first; no target has a say in that.
    """
    found: dict[str, list[ModelVersion]] = {}
    for source in runs[0].recipe.sources:
        tables = [_seed_scores(run, source) for run in runs]
        students = [_student(registry, tracking, run, source, tables) for run in runs]
        versions = [registry.add(student) for student in students]
        for run, version in zip(runs, versions, strict=True):
            register_known(registry, version, run.recipe, run.workspace, source)
        order = sorted(range(len(runs)), key=lambda index: (-tables[index].validation, tables[index].seed))
        found[source] = [versions[index] for index in order]
    return found


def _student(registry: Registry, tracking: Tracking, run: FinishedRun, source: str, tables: Sequence[SeedScores]) -> Student:
    folder = run.workspace / run.recipe.find(LEARN_TASK.name, source).output
    manifest = SegmentorCheckpoint.read(folder / MANIFEST)
    model_id, maker = _logged_model(tracking, run, folder, manifest)
    return Student(model_id, maker, _facts(run, source, folder, manifest, tables), run_fingerprint(run))


def _logged_model(tracking: Tracking, run: FinishedRun, folder: Path, manifest: SegmentorCheckpoint) -> tuple[str, str]:
    """The logged model of these weights and its run; logged now where the student was trained outside of a flow."""
    query = f"tags.`{SHA256_TAG}` = '{manifest.sha256}' and name = 'student-{manifest.source}'"
    for model in tracking.client.search_logged_models([tracking.experiment], filter_string=query):
        if str(model.status) == "READY" and BUNDLE in recorded(model.tags):
            return str(model.model_id), str(model.source_run_id)
    from gkd_core.registry.logged_model import log_segmentor  # they load what exports a program
    from gkd_core.stages.bundle import describe

    bundle = describe(folder, run.recipe, run.workspace)
    example = source_example(run.recipe, manifest.source, run.workspace)
    run_id = str(run.run.info.run_id)
    key = run.settings.registry.private_key
    return log_segmentor(tracking.client, tracking.experiment, run_id, folder, bundle, example, key), run_id


def _facts(
    run: FinishedRun, source: str, folder: Path, manifest: SegmentorCheckpoint, tables: Sequence[SeedScores]
) -> ModelFacts:
    settings, tags = run.settings, run.run.data.tags
    model = f"{settings.registry.name}-{source}"
    uses = _data(run, source)
    digests = {use.reference: use.digest for use in uses}
    measured = dict.fromkeys(score.dataset for table in tables for score in table.scores)
    data = {name: digests[name] for name in measured if name in digests}
    seeds = ", ".join(str(table.seed) for table in tables)
    return ModelFacts(
        model=model,
        source=source,
        method=manifest.method,
        method_summary=METHODS[settings.method].summary,
        seed=manifest.seed,
        teacher=settings.teacher,
        student=settings.student if METHODS[settings.method].encoder == "student" else settings.teacher,
        decoder=manifest.decoder,
        classes=manifest.classes,
        parameters=sum(tensor.numel() for tensor in read_tensors(folder / manifest.weights).values()),
        encoder_frozen=manifest.encoder_frozen,
        field=manifest.field,
        updates={**_distilled(run, source), LEARN_TASK.name: manifest.updates},
        sha256=manifest.sha256,
        window=settings.evaluate.window,
        size=size_of(folder, settings),
        data=uses,
        standing=Standing(name=f"{model} (seeds {seeds})", seeds=tuple(tables), data=data),
        teacher_licence=weights_licence(settings.teacher, settings.registry.teacher_licence),
        student_licence=settings.registry.student_licence or UNKNOWN_LICENCE,
        fingerprint=run_fingerprint(run).digest,
        revision=tags.get("mlflow.source.git.commit", "unknown"),
        dirty=tags.get("git.dirty", "unknown"),
        flow_run=tags.get(FLOW_RUN_TAG, "none"),
        mlflow_run=str(run.run.info.run_id),
    )


def _seed_scores(run: FinishedRun, source: str) -> SeedScores:
    table = ScoreTable.read(run.workspace / run.recipe.find(EVALUATE.name, source).output / SCORES)
    return SeedScores(seed=run.settings.seed, scores=table.scores)


def _distilled(run: FinishedRun, source: str) -> dict[str, int]:
    """Updates of the stages before stage two that this student went through."""
    stages = [stage for stage in run.recipe.plan if STAGES[stage.stage].distills]
    own = [stage for stage in stages if stage.source in (None, source)]
    return {stage.stage: EncoderCheckpoint.read(run.workspace / stage.output / MANIFEST).updates for stage in own}


def _data(run: FinishedRun, source: str) -> tuple[DataUse, ...]:
    """What the run told MLflow of the data, of this source's own."""
    own = _references(run, source)
    uses = []
    inputs = run.run.inputs
    for entry in inputs.dataset_inputs if inputs else ():
        tags = {tag.key: tag.value for tag in entry.tags}
        if entry.dataset.name in own:
            uses.append(
                DataUse(
                    reference=entry.dataset.name,
                    part=tags.get("mlflow.data.context", "unknown"),
                    digest=entry.dataset.digest,
                    pinned=tags.get("pinned") == "true",
                )
            )
    return tuple(sorted(uses, key=lambda use: (use.part, use.reference)))


def _references(run: FinishedRun, source: str) -> set[str]:
    return {name for stage in _own_stages(run, source) for name in run.recipe.domains_read(stage)}


def _own_stages(run: FinishedRun, source: str) -> list[StageRun]:
    return [stage for stage in run.recipe.plan if stage.stage != PREPARE_DATA.name and stage.source in (None, source)]


def _pinned(run: FinishedRun) -> PinnedInputs:
    return PinnedInputs.read(run.workspace / RECORD)


def _unpinned(run: FinishedRun) -> dict[str, str]:
    """DVC's digests, from the run's lock file, of inputs without a pin."""
    digests: dict[str, str] = {}
    for stage in run.recipe.plan:
        digests |= input_digests(run.workspace, stage)
    loose = loose_inputs(run.project, run.recipe, _pinned(run))
    return {path.as_posix(): digests[path.as_posix()] for path in loose}
