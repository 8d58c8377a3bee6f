"""The recipe's stages as Prefect tasks: each has DVC reproduce one stage and MLflow told what came of it."""

import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.runtime import flow_run as this_run
from prefect.tasks import Task

from flows.artifacts import stage_progress
from gkd_core.cluster.local import LocalCluster
from gkd_core.data.catalog.load import load_catalog
from gkd_core.errors import TransientError
from gkd_core.settings import Settings
from gkd_core.stages import StageRun, find_run, run_folder
from gkd_core.stages.facts import LEARN_TASK, PREPARE_DATA, names_where
from gkd_core.stages.length import Length, length_of
from gkd_core.storage.mlflow_errors import explained
from gkd_core.tracking.datasets import DatasetInput, dataset_inputs, version_tags
from gkd_core.tracking.flow_runs import ParentRun, Tracking
from gkd_core.versioning.pinned_inputs import RECORD, fetch_pinned, pinned_inputs
from gkd_core.versioning.pins import PinnedInputs
from gkd_core.versioning.recipe import Outcome, StageFailed, reproduce
from gkd_core.versioning.stage_lock import digest_of, stage_lock

TRAINING_STAGES = names_where(lambda stage: stage.trains)
Result = TypeVar("Result")
RETRY_SECONDS = [10, 60, 300]  # a restarted service takes seconds, a replaced node minutes


@dataclass(frozen=True)
class Job:
    """What the tasks of one flow run share."""

    settings: Settings
    workspace: Path
    cluster: LocalCluster
    tracking: Tracking
    parent: ParentRun
    seconds: dict[str, float] = field(default_factory=dict)  # what each stage took, as they end

    def datasets(self, run: StageRun) -> list[DatasetInput]:
        """What MLflow is to know of the data that a stage reads; prepare-data is done by then."""
        prepare = find_run(self.settings, PREPARE_DATA.name, None)
        catalog = load_catalog(self.settings.data.catalogs)
        pinned = PinnedInputs.read(self.workspace / RECORD)
        return dataset_inputs(self.settings, catalog, run, pinned, prepare, self.workspace)

    def length(self, run: StageRun) -> Length | None:
        """How long a stage is; prepare-data is done by then."""
        return length_of(self.settings, load_catalog(self.settings.data.catalogs), run, self.workspace)


def _fetch_data(job: Job, project: Path) -> None:
    """Bring the pinned data of the run here, before any stage; the versions go with the run.

    Raises:
        DataError: a dataset is not as pinned, or neither here nor pinned.
    """
    log = get_run_logger()
    started = time.monotonic()
    pinned = pinned_inputs(project, job.settings)
    pinned.write(job.workspace / RECORD)
    job.parent.add_tags(version_tags(pinned))
    absent = [pin for pin in pinned.pins if not (project / pin.path).exists()]
    for pin in absent:
        log.info("%s: absent, fetching what %s pins (%s)", pin.path, pin.file, pin.size)
    fetch_pinned(project, job.workspace / RECORD, log.info)
    for pin in pinned.pins:
        log.info("%s: as pinned, %s", pin.path, pin.md5)
    for path in pinned.unpinned:
        log.info("%s: not pinned; the run records what DVC finds there (gkd data pin)", path)
    log.info("fetch-data: done in %.1f s", time.monotonic() - started)


def fetch_task(job: Job, project: Path) -> Task[[], None]:
    """The task that comes before all stages.

    A remote that does not answer may do so a little later; what is refused stays so until somebody acts.
    """

    @retried_task("fetch-data")
    def fetch_data() -> None:
        with explained(job.tracking.address):
            _fetch_data(job, project)

    return fetch_data


def may_pass(error: object) -> bool:
    """Whether what a task raised may pass by itself, so that the task is tried again: see `RETRY_SECONDS`.

    Bad settings, bad data and a loss that is not finite would be the same again; a bug of ours as well.
    """
    return isinstance(error, TransientError) or (isinstance(error, StageFailed) and error.may_pass)


def retried_task(name: str) -> Callable[[Callable[[], Result]], Task[[], Result]]:
    """Decorates a function as the task of this name, tried again where its error may pass by itself."""

    def declare(function: Callable[[], Result]) -> Task[[], Result]:
        # DVC alone decides what is up to date, so Prefect keeps no results of its own.
        return task(
            name=name,
            task_run_name=name,
            cache_policy=NO_CACHE,
            retries=len(RETRY_SECONDS),
            retry_delay_seconds=list(RETRY_SECONDS),
            retry_condition_fn=_is_retried,
        )(function)

    return declare


def _is_retried(failed: Task[..., object], task_run: TaskRun, state: State[object]) -> bool:
    return may_pass(state.result(raise_on_failure=False))


def stage_task(job: Job, run: StageRun) -> Task[[], Outcome]:
    """A task, of the stage's own name, that runs it.

    A stage that a signal ended (out of memory, a lost node), or that says that waiting may help, is tried again and goes on
    from its last checkpoint. One that ended with another message would only say it again.
    """

    @retried_task(run.name)
    def stage() -> Outcome:
        with explained(job.tracking.address):
            return _run_stage(job, run)

    return stage


def _run_stage(job: Job, run: StageRun) -> Outcome:
    log = get_run_logger()
    started = time.monotonic()
    folder = run_folder(job.settings, run, job.workspace)

    def on_wait(holder: str) -> None:
        log.info("%s: %s works on it; waiting for its result", run.name, holder)

    holder = f"the flow run {this_run.name}"
    with stage_lock(job.workspace, run, digest_of(folder, run), holder, on_wait) as lock, ExitStack() as stack:
        child_run: list[str] = []

        def on_start() -> None:
            stack.enter_context(job.cluster.turn(run.stage))
            log.info("%s: running", run.name)
            job.cluster.before(run.stage)
            metrics = folder if run.stage in TRAINING_STAGES else None
            child_run.append(stack.enter_context(job.parent.stage_run(run, job.workspace, metrics, folder)))
            length = job.length(run)
            if length is not None and metrics is not None:
                job.parent.note_planned(child_run[0], length.total)
            stack.enter_context(stage_progress(run.name, length, folder, log))

        outcome = reproduce(job.workspace, run, on_start, job.cluster.environment(run.stage), held=[lock])
        if child_run:
            job.parent.log_datasets(child_run[0], job.datasets(run))
        if outcome == "ran" and run.stage == LEARN_TASK.name:
            _log_model(job, run, child_run[0])
    if outcome != "ran":
        job.parent.note_restored(run, job.workspace)
    job.seconds[run.name] = time.monotonic() - started
    log.info("%s: %s in %.1f s", run.name, OUTCOME_WORDS[outcome], job.seconds[run.name])
    return outcome


OUTCOME_WORDS: dict[Outcome, str] = {"ran": "done", "restored": "restored from the cache", "unchanged": "up to date"}


def _log_model(job: Job, run: StageRun, child_run: str) -> None:
    # Both load torch, which a run without training need not.
    from gkd_core.registry.logged_model import log_segmentor
    from gkd_core.stages.example import source_example

    example = source_example(job.settings, str(run.source), job.workspace)
    key = job.settings.registry.private_key
    log_segmentor(job.tracking.client, job.tracking.experiment, child_run, job.workspace / run.output, example, key)
