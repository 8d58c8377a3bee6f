"""The recipe's stages as Prefect tasks: each has DVC reproduce one stage and MLflow told what came of it."""

import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from mlflow.entities import DatasetInput
from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.tasks import Task

from gkd_core.adapters.dvc_pins import RECORD, fetch_pinned, pinned_inputs
from gkd_core.adapters.dvc_recipe import Outcome, StageFailed, reproduce
from gkd_core.adapters.mlflow_datasets import dataset_inputs, version_tags
from gkd_core.adapters.mlflow_tracking import MODEL_STAGE, ParentRun, Tracking
from gkd_core.adapters.ray_cluster import LocalCluster
from gkd_core.data.catalog import load_catalog
from gkd_core.data.pins import PinnedInputs
from gkd_core.errors import PlatformError
from gkd_core.settings import Settings
from gkd_core.stages import StageRun, find_run, run_folder

TRAINING_STAGES = ("distill-proxy", "distill-source", MODEL_STAGE)
RETRY_SECONDS = 10
FETCH_RETRIES = 2


@dataclass(frozen=True)
class Job:
    """What the tasks of one flow run share."""

    settings: Settings
    workspace: Path
    cluster: LocalCluster
    tracking: Tracking
    parent: ParentRun

    def datasets(self, run: StageRun) -> list[DatasetInput]:
        """What MLflow is to know of the data that a stage reads; prepare-data is done by then."""
        prepare = find_run(self.settings, "prepare-data", None)
        catalog = load_catalog(self.settings.data.catalogs)
        pinned = PinnedInputs.read(self.workspace / RECORD)
        return dataset_inputs(self.settings, catalog, run, pinned, prepare, self.workspace)


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

    @task(
        name="fetch-data",
        task_run_name="fetch-data",
        cache_policy=NO_CACHE,
        retries=FETCH_RETRIES,
        retry_delay_seconds=RETRY_SECONDS,
        retry_condition_fn=_may_pass,
    )
    def fetch_data() -> None:
        _fetch_data(job, project)

    return fetch_data


def _may_pass(failed: Task[..., object], task_run: TaskRun, state: State[object]) -> bool:
    return isinstance(state.result(raise_on_failure=False), PlatformError)


def stage_task(job: Job, run: StageRun) -> Task[[], Outcome]:
    """A task, of the stage's own name, that runs it.

    A stage that a signal ended (out of memory, a lost node) is tried once more and goes on from its last checkpoint. One
    that ended with a message would only say it again.
    """

    # DVC alone decides what is up to date, so Prefect keeps no results of its own.
    @task(
        name=run.name,
        task_run_name=run.name,
        cache_policy=NO_CACHE,
        retries=1,
        retry_delay_seconds=RETRY_SECONDS,
        retry_condition_fn=_was_struck_down,
    )
    def stage() -> Outcome:
        return _run_stage(job, run)

    return stage


def _was_struck_down(failed: Task[..., object], task_run: TaskRun, state: State[object]) -> bool:
    error = state.result(raise_on_failure=False)
    return isinstance(error, StageFailed) and (error.status < 0 or error.status > 128)


def _run_stage(job: Job, run: StageRun) -> Outcome:
    log = get_run_logger()
    started = time.monotonic()
    with ExitStack() as stack:
        child_run: list[str] = []

        def on_start() -> None:
            log.info("%s: running", run.name)
            job.cluster.before(run.stage)
            metrics = run_folder(job.settings, run, job.workspace) if run.stage in TRAINING_STAGES else None
            child_run.append(stack.enter_context(job.parent.stage_run(run, job.workspace, metrics)))

        outcome = reproduce(job.workspace, run, on_start, job.cluster.environment)
        if child_run:
            job.parent.log_datasets(child_run[0], job.datasets(run))
        if outcome == "ran" and run.stage == MODEL_STAGE:
            _log_model(job, run, child_run[0])
    if outcome == "restored":
        job.parent.note_restored(run, job.workspace)
    log.info("%s: %s in %.1f s", run.name, OUTCOME_WORDS[outcome], time.monotonic() - started)
    return outcome


OUTCOME_WORDS: dict[Outcome, str] = {"ran": "done", "restored": "restored from the cache", "unchanged": "up to date"}


def _log_model(job: Job, run: StageRun, child_run: str) -> None:
    # Both load torch, which a run without training need not.
    from gkd_core.adapters.mlflow_model import log_segmentor
    from gkd_core.stages.example import source_example

    example = source_example(job.settings, str(run.source), job.workspace)
    log_segmentor(job.tracking.client, job.tracking.experiment, child_run, job.workspace / run.output, example)
