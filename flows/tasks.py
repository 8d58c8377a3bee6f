"""The recipe's stages as Prefect tasks: each has DVC reproduce one stage and MLflow told what came of it."""

import logging
import time
from collections.abc import Callable
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
from gkd_core.errors import TransientError
from gkd_core.messages import one_line
from gkd_core.settings import Settings
from gkd_core.stages import Recipe, StageRun, run_folder
from gkd_core.stages.facts import LEARN_TASK, STAGES
from gkd_core.stages.length import length_of
from gkd_core.storage.mlflow_errors import explained
from gkd_core.system.child_process import wait_unless_ending
from gkd_core.tracking.datasets import DatasetInput, dataset_inputs, version_tags
from gkd_core.tracking.flow_runs import ParentRun, Tracking
from gkd_core.versioning.pinned_inputs import RECORD, fetch_pinned, pinned_inputs
from gkd_core.versioning.pins import PinnedInputs
from gkd_core.versioning.recipe import Outcome, Reproduction, StageFailed, reproduction
from gkd_core.versioning.stage_lock import digest_of, stage_lock

Result = TypeVar("Result")
LONGEST_REASON = 500
log = logging.getLogger("prefect.flow_runs")  # as the flow's own: on the terminal, and with the run on Prefect's server
RETRY_SECONDS = [10, 60, 300]  # a restarted service takes seconds, a replaced node minutes


@dataclass(frozen=True)
class Job:
    """What the tasks of one flow run share."""

    recipe: Recipe
    workspace: Path
    cluster: LocalCluster
    tracking: Tracking
    parent: ParentRun
    seconds: dict[str, float] = field(default_factory=dict)  # what each stage took, as they end

    @property
    def settings(self) -> Settings:
        """The recipe's settings."""
        return self.recipe.settings

    def datasets(self, run: StageRun) -> list[DatasetInput]:
        """What MLflow is to know of the data that a stage reads; prepare-data is done by then."""
        return dataset_inputs(self.recipe, run, PinnedInputs.read(self.workspace / RECORD), self.workspace)


def _fetch_data(job: Job, project: Path) -> None:
    """Bring the pinned data of the run here, before any stage; the versions go with the run.

    Raises:
        DataError: a dataset is not as pinned, or neither here nor pinned.
    """
    log = get_run_logger()
    started = time.monotonic()
    pinned = pinned_inputs(project, job.recipe)
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
            # The pause is ours, within the condition: Prefect's sleep would not hear that the process is told to end.
            retry_delay_seconds=0,
            retry_condition_fn=_is_retried,
        )(function)

    return declare


def _is_retried(failed: Task[..., object], task_run: TaskRun, state: State[object]) -> bool:
    error = state.result(raise_on_failure=False)
    if not may_pass(error):
        return False
    made = task_run.run_count
    seconds = RETRY_SECONDS[min(made, len(RETRY_SECONDS)) - 1]
    log.warning(
        "%s: try %d of %d failed: %s; the next comes in %d s, at %s",
        failed.name, made, len(RETRY_SECONDS) + 1, one_line(error, LONGEST_REASON), seconds,
        time.strftime("%H:%M:%S", time.localtime(time.time() + seconds)),
    )  # fmt: skip
    return wait_unless_ending(seconds)


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

    with (
        stage_lock(job.workspace, run, digest_of(folder, run), f"the flow run {this_run.name}", on_wait) as lock,
        reproduction(job.workspace, run, job.cluster.environment(run.stage), held=[lock]) as dvc,
    ):
        if dvc.is_due:
            _work(job, run, folder, dvc)
    if not dvc.is_due:
        job.parent.note_restored(run, job.workspace)
    job.seconds[run.name] = time.monotonic() - started
    log.info("%s: %s in %.1f s", run.name, OUTCOME_WORDS[dvc.outcome], job.seconds[run.name])
    return dvc.outcome


def _work(job: Job, run: StageRun, folder: Path, dvc: Reproduction) -> None:
    """Have the stage's command run, and MLflow and Prefect follow it by what it writes in its run folder."""
    log = get_run_logger()
    metrics = folder if STAGES[run.stage].trains else None
    with job.cluster.turn(run.stage):
        log.info("%s: running", run.name)
        job.cluster.before(run.stage)
        with job.parent.stage_run(run, job.workspace, metrics, folder) as child_run:
            length = length_of(job.recipe, run, job.workspace)
            if length is not None and metrics is not None:
                job.parent.note_planned(child_run, length.total)
            with stage_progress(run.name, length, folder, log):
                dvc.work()
            job.parent.log_datasets(child_run, job.datasets(run))
            if run.stage == LEARN_TASK.name:
                _log_model(job, run, child_run)


OUTCOME_WORDS: dict[Outcome, str] = {"ran": "done", "restored": "restored from the cache", "unchanged": "up to date"}


def _log_model(job: Job, run: StageRun, child_run: str) -> None:
    # They load torch, which a run without training need not.
    from gkd_core.registry.logged_model import log_segmentor
    from gkd_core.stages.bundle import describe
    from gkd_core.stages.example import source_example

    folder, tracking, key = job.workspace / run.output, job.tracking, job.settings.registry.private_key
    bundle = describe(folder, job.recipe, job.workspace)
    example = source_example(job.recipe, str(run.source), job.workspace)
    log_segmentor(tracking.client, tracking.experiment, child_run, folder, bundle, example, key)
