"""The recipe's stages as Prefect tasks: each has DVC reproduce one stage and MLflow told what came of it."""

import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.tasks import Task

from gkd_core.adapters.dvc_recipe import Outcome, StageFailed, reproduce
from gkd_core.adapters.mlflow_tracking import MODEL_STAGE, ParentRun, Tracking
from gkd_core.adapters.ray_cluster import LocalCluster
from gkd_core.settings import Settings
from gkd_core.stages import StageRun, run_folder

TRAINING_STAGES = ("distill-proxy", "distill-source", MODEL_STAGE)
RETRY_SECONDS = 10


@dataclass(frozen=True)
class Job:
    """What the tasks of one flow run share."""

    settings: Settings
    workspace: Path
    cluster: LocalCluster
    tracking: Tracking
    parent: ParentRun


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
        if outcome == "ran" and run.stage == MODEL_STAGE:
            _log_model(job, run, child_run[0])
    if outcome == "restored":
        job.parent.note_restored(run, job.workspace)
    log.info("%s: %s in %.1f s", run.name, OUTCOME_WORDS[outcome], time.monotonic() - started)
    return outcome


OUTCOME_WORDS: dict[Outcome, str] = {"ran": "done", "restored": "restored from the cache", "unchanged": "up to date"}


def _log_model(job: Job, run: StageRun, child_run: str) -> None:
    from gkd_core.adapters.mlflow_model import (
        log_segmentor,  # loads torch, which a run without training need not
    )

    folder, window = job.workspace / run.output, job.settings.evaluate.window
    log_segmentor(job.tracking.client, job.tracking.experiment, child_run, folder, window)
