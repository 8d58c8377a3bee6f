"""A flow run in MLflow: a parent run, and in it a child run for each stage that was really computed."""

from __future__ import annotations

import os

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # read when mlflow is imported
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")  # the page of a run has its address

import logging
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from mlflow.entities import DatasetInput, LifecycleStage, LoggedModelStatus, Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from gkd_core.errors import PlatformError
from gkd_core.messages import shown, without_passwords
from gkd_core.methods import method_of
from gkd_core.records import MANIFEST, ScoreTable, SegmentorCheckpoint
from gkd_core.settings import Settings
from gkd_core.stages import StageRun, params_of
from gkd_core.stages.facts import LEARN_TASK
from gkd_core.storage.mlflow_errors import explained
from gkd_core.storage.mlflow_store import PARENT_TAG, PLANNED, local_artifacts, tracking_address
from gkd_core.system.child_process import is_ending
from gkd_core.system.git import git
from gkd_core.system.server_keys import make_private
from gkd_core.tracking.costs import DAMAGED_TAG, UNKNOWN_TAG, cost_line, damaged_notes, run_metrics, stage_metrics
from gkd_core.tracking.report import EXPERIMENT_NOTE, NOTE_TAG, log_student_report, log_tables, note
from gkd_core.tracking.steps import StepMetrics
from gkd_core.training.metrics import following
from gkd_core.versioning.recipe import input_digests, output_digest

logging.getLogger("mlflow").setLevel(logging.WARNING)
logging.getLogger("alembic").setLevel(logging.WARNING)

UNKNOWN = "unknown"  # in the place of a run's id
FLOW_RUN_TAG = "prefect.flow_run_id"
LOST_TAG = "metrics.lost"  # on a stage's run: how many lines of step metrics never reached it
WEIGHTS_TAG = "weights."  # before a source's name, on a flow's run: SHA-256 of its student's weights
LONGEST_TAG = 5000  # characters, by MLflow's own rule
Tags = Mapping[str, str]
# The run that flow runs begun from here belong to; a context variable, as Prefect's task runners hand those to their threads.
_group: ContextVar[str | None] = ContextVar("group run", default=None)


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested settings as flat parameters: `{"a": {"b": 1}}` gives `{"a.b": "1"}`."""
    flat: dict[str, str] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            flat.update(flatten(value, f"{prefix}{key}."))
        else:
            flat[prefix + key] = str(value)
    return flat


def settings_tags(settings: Settings) -> dict[str, str]:
    """What tells one run of a comparison from another, as tags to filter, sort and group by."""
    return {
        "method": settings.method,
        "seed": str(settings.seed),
        "student": settings.student.arch,
        "teacher": settings.teacher.arch,
        "label_fraction": f"{settings.learn_task.label_fraction:g}",
    }


def run_name(settings: Settings) -> str:
    """A name to read in a list of runs: `gkd-vit_tiny-seed0`, with `-labels0.1` where not all labels are learnt from."""
    encoder = settings.teacher if method_of(settings).encoder == "teacher" else settings.student
    fraction = settings.learn_task.label_fraction
    return f"{settings.method}-{encoder.arch}{'' if fraction == 1 else f'-labels{fraction:g}'}-seed{settings.seed}"


def source_tags(project: Path) -> dict[str, str]:
    """The git revision that runs and whether the checkout has changes.

    Outside a git checkout that of the image, by the variable GKD_REVISION (`REVISION`, or `REVISION+changes`); else "unknown".
    """
    revision = git(project, "rev-parse", "HEAD")
    if revision is None:
        built, changed, _ = os.environ.get("GKD_REVISION", "").partition("+")
        if re.fullmatch("[0-9a-f]{40}", built) is None:
            return {"mlflow.source.git.commit": "unknown", "git.dirty": "unknown"}
        return {"mlflow.source.git.commit": built, "git.dirty": str(bool(changed)).lower()}
    changes = git(project, "status", "--porcelain", "--untracked-files=no")
    return {"mlflow.source.git.commit": revision, "git.dirty": "unknown" if changes is None else str(bool(changes)).lower()}


class Tracking:
    """One experiment of one MLflow store."""

    def __init__(self, settings: Settings, project: Path) -> None:
        """Open the store, making it and the experiment where they do not exist.

        Raises:
            PlatformError: the store cannot be used; a TransientError where it does not answer.
        """
        self.address = tracking_address(settings.tracking.uri, project)
        artifacts = None
        if self.address.startswith("sqlite:///"):
            make_private(Path(self.address.removeprefix("sqlite:///")))
            artifacts = local_artifacts(project)
        with explained(self.address):
            self.client = MlflowClient(self.address)
            self.experiment = self._experiment(settings.tracking.experiment, artifacts)

    def _experiment(self, name: str, artifacts: str | None) -> str:
        found = self.client.get_experiment_by_name(name)
        if found is None:
            try:
                return str(self.client.create_experiment(name, artifact_location=artifacts, tags={NOTE_TAG: EXPERIMENT_NOTE}))
            except MlflowException:
                found = self.client.get_experiment_by_name(name)  # another run may have made it just now
                if found is None:
                    raise
        if found.lifecycle_stage == LifecycleStage.DELETED:
            raise PlatformError(
                f"MLflow at {without_passwords(self.address)}: the experiment '{shown(name)}' was deleted there; restore it "
                f"(mlflow experiments restore --experiment-id {found.experiment_id}), or name another: tracking.experiment"
            )
        return str(found.experiment_id)

    @contextmanager
    def group_run(self, name: str, tags: Tags) -> Iterator[str]:
        """A run while the block lasts, and the parent of the flow runs that begin in it, as those of a comparison."""
        with self.run(name, tags) as run_id:
            token = _group.set(run_id)
            try:
                yield run_id
            finally:
                _group.reset(token)

    @contextmanager
    def flow_run(self, name: str, settings: Settings, tags: Tags) -> Iterator[ParentRun]:
        """A parent run of stages while the block lasts; it ends as the block does, and belongs to the group run around it."""
        tags = {**settings_tags(settings), "kind": "pipeline", **tags}
        group = _group.get()
        with self.run(name, tags if group is None else {**tags, PARENT_TAG: group}) as run_id:
            self.log_params(run_id, settings.model_dump(mode="json"))
            yield ParentRun(self, run_id, settings, tags)

    def log_params(self, run_id: str, tree: Mapping[str, Any]) -> None:
        """Settings, nested or not, as the run's flat parameters."""
        self.client.log_batch(run_id, params=[Param(key, value) for key, value in flatten(tree).items()])

    @contextmanager
    def run(self, name: str, tags: Tags) -> Iterator[str]:
        """A run while the block lasts: FINISHED at its end, FAILED by an error, KILLED by whatever else stops it.

        An error counts as one only while this process goes on: told to end, what it still waits for fails in many ways.
        """
        with explained(self.address):
            run_id = self.client.create_run(self.experiment, run_name=name, tags=dict(tags)).info.run_id
        status = "KILLED"
        try:
            yield run_id
            status = "FINISHED"
        except Exception:
            status = "KILLED" if is_ending() else "FAILED"
            raise
        finally:
            self.client.set_terminated(run_id, status)

    def maker_of(self, run: StageRun, digest: str) -> str:
        """Id of the newest run that made this output of the stage; "unknown" where it was made outside a flow."""
        query = f"tags.stage = '{run.name}' and tags.`dvc.out` = '{digest}' and attributes.status = 'FINISHED'"
        found = self.client.search_runs([self.experiment], query, max_results=1, order_by=["attributes.start_time DESC"])
        return str(found[0].info.run_id) if found else UNKNOWN

    def metrics_of(self, run_id: str) -> dict[str, float]:
        """The newest value of each metric of a run; none of an unknown one."""
        return {} if run_id == UNKNOWN else dict(self.client.get_run(run_id).data.metrics)

    def model_of(self, run_id: str) -> str | None:
        """Id of the newest model that a run has logged and that is ready; None where there is none."""
        if run_id == UNKNOWN:
            return None
        query = f"source_run_id = '{run_id}'"
        models = self.client.search_logged_models([self.experiment], query)
        ready = [model for model in models if model.status == LoggedModelStatus.READY]
        return max(ready, key=lambda model: model.creation_timestamp).model_id if ready else None

    def log_comparison(self, run_id: str, table: ScoreTable, folder: Path) -> None:
        """The report of several students, to the group run that holds theirs."""
        log_tables(self.client, run_id, table, folder)
        self.client.set_tag(run_id, NOTE_TAG, note(table, ""))


class ParentRun:
    """The MLflow run of a flow run."""

    def __init__(self, tracking: Tracking, run_id: str, settings: Settings, tags: Tags) -> None:
        self._tracking = tracking
        self._client = tracking.client
        self.run_id = run_id
        self._settings = settings
        self._tags = tags
        self._makers: dict[str, str] = {}  # of each stage's result, the run that made it
        self._data: dict[str, str] = {}  # digest of each `dataset/split` that the run has read
        self._cost = ""

    @contextmanager
    def stage_run(self, run: StageRun, workspace: Path, metrics: Path | None, costs: Path | None = None) -> Iterator[str]:
        """A child run while a stage runs: the settings that it reads, its step metrics as they come, in the end its digests
        and what it cost.

        Args:
            metrics: the folder whose `metrics.jsonl` the stage writes, or None where it writes none.
            costs: the stage's run folder, where it notes what it costs, or None where it does not.
        """
        own = {PARENT_TAG: self.run_id, "kind": "stage", "stage": run.name, "source": run.source or "all"}
        tags = {**self._tags, **own}
        with self._tracking.run(run.name, tags) as run_id:
            self._tracking.log_params(run_id, params_of(self._settings, run))
            with nullcontext() if metrics is None else following(metrics, StepMetrics(self._client, run_id)) as handing:
                yield run_id
            inputs = {f"dvc.in.{path}": digest for path, digest in input_digests(workspace, run).items()}
            facts = {"dvc.out": output_digest(workspace, run), **inputs}
            if handing is not None and handing.lost:
                facts |= {LOST_TAG: str(handing.lost)}
            cost = {} if costs is None else stage_metrics(run, costs, self._settings)
            if costs is not None and (damaged := damaged_notes(costs)):
                facts |= {DAMAGED_TAG: ", ".join(damaged)}
            now = int(time.time() * 1000)
            self._client.log_batch(
                run_id,
                metrics=[Metric(key, value, now, 0) for key, value in cost.items()],
                tags=[RunTag(key, value[:LONGEST_TAG]) for key, value in facts.items()],
            )
        self._makers[run.name] = run_id

    def note_planned(self, run_id: str, updates: int) -> None:
        """Say how many updates a stage's run is to do."""
        self._client.log_metric(run_id, PLANNED, updates)

    def note_restored(self, run: StageRun, workspace: Path) -> None:
        """Say which run once made a result that was restored, or was in place."""
        maker = self._makers[run.name] = self._tracking.maker_of(run, output_digest(workspace, run))
        self._client.set_tag(self.run_id, f"restored.{run.name}", maker)

    def log_report(self, table: ScoreTable, folder: Path) -> None:
        """The matrix as flat metrics, each with the model and the data that it is of, as tables, and the report's files."""
        log_student_report(self._client, self.run_id, table, folder, self._models(), self._data)
        self._client.set_tag(self.run_id, NOTE_TAG, note(table, self._cost))

    def log_costs(self) -> None:
        """What all stages of the run cost together, whoever ran them; to be called before the report is logged."""
        metrics, unknown = run_metrics({name: self._tracking.metrics_of(maker) for name, maker in self._makers.items()})
        now = int(time.time() * 1000)
        tags = [RunTag(UNKNOWN_TAG, ", ".join(unknown))] if unknown else []
        self._client.log_batch(self.run_id, metrics=[Metric(key, value, now, 0) for key, value in metrics.items()], tags=tags)
        self._cost = cost_line(metrics, unknown)

    def _models(self) -> dict[str, str]:
        """The newest logged model of each source whose student this run made or took over."""
        prefix = f"{LEARN_TASK.name}-"
        makers = {name.removeprefix(prefix): maker for name, maker in self._makers.items() if name.startswith(prefix)}
        found = {source: self._tracking.model_of(maker) for source, maker in makers.items()}
        return {source: model for source, model in found.items() if model is not None}

    def note_student(self, run: StageRun, workspace: Path) -> None:
        """Say which weights a source's student of this run has, whether it was trained now or restored."""
        record = SegmentorCheckpoint.read(workspace / run.output / MANIFEST)
        self._client.set_tag(self.run_id, f"{WEIGHTS_TAG}{run.source}", record.sha256)

    def log_pictures(self, run: StageRun, workspace: Path) -> None:
        """The pictures of a stage's output as artifacts, `pictures/<source>/…`, whether it was drawn now or restored."""
        self._client.log_artifacts(self.run_id, str(workspace / run.output), f"pictures/{run.source}")

    def add_tags(self, tags: Tags) -> None:
        """Put further tags on the run, and on the stages' runs that begin from now on."""
        self._tags = {**self._tags, **tags}
        self._client.log_batch(self.run_id, tags=[RunTag(key, value) for key, value in tags.items()])

    def log_datasets(self, run_id: str, datasets: Sequence[DatasetInput]) -> None:
        """Name what a run, this one or a stage's, has read."""
        if run_id == self.run_id:
            self._data |= {item.dataset.name: item.dataset.digest for item in datasets}
        if datasets:
            self._client.log_inputs(run_id, list(datasets))
