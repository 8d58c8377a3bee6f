"""What MLflow remembers: a parent run for each flow run, and in it a child for each stage that really ran."""

from __future__ import annotations

import os

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # read when mlflow is imported

import logging
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from mlflow.entities import DatasetInput, Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from gkd_core.adapters.dvc_recipe import input_digests, output_digest
from gkd_core.errors import PlatformError
from gkd_core.evaluate.rows import target_mean
from gkd_core.methods import method_of
from gkd_core.records import ScoreTable
from gkd_core.settings import Settings
from gkd_core.stages import ARTIFACTS, StageRun, params_of
from gkd_core.training.metrics import Line, following

logging.getLogger("mlflow").setLevel(logging.WARNING)
logging.getLogger("alembic").setLevel(logging.WARNING)

STORE = ARTIFACTS / "mlflow"
BATCH = 1000  # metrics that MLflow takes in one call
MODEL_STAGE = "learn-task"
FLOW_RUN_TAG = "prefect.flow_run_id"
PARENT_TAG = "mlflow.parentRunId"
Tags = Mapping[str, str]
# The run that flow runs begun from here belong to; a context variable, as Prefect's task runners hand those to their threads.
_group: ContextVar[str | None] = ContextVar("group run", default=None)


def tracking_address(settings: Settings, project: Path) -> str:
    """MLFLOW_TRACKING_URI, else the settings' address, else an SQLite file in the project."""
    local = f"sqlite:///{(project / STORE / 'mlflow.db').resolve()}"
    return os.environ.get("MLFLOW_TRACKING_URI") or settings.tracking.uri or local


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested settings as flat parameters: `{"a": {"b": 1}}` gives `{"a.b": "1"}`."""
    flat: dict[str, str] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            flat.update(flatten(value, f"{prefix}{key}."))
        else:
            flat[prefix + key] = str(value)
    return flat


def matrix_metrics(table: ScoreTable) -> dict[str, float]:
    """Flat metrics of one student's scores: one for each cell of the matrix, and the mean over target domains, in %."""
    metrics: dict[str, float] = {}
    for score in table.scores:
        metrics[f"miou/{score.benchmark}/{'in_domain' if score.in_domain else score.domain}"] = score.miou
    measured_on_targets = any(not score.in_domain for score in table.scores)
    return metrics | ({"miou/mean_targets": target_mean(table.scores)} if measured_on_targets else {})


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
    """The git revision that runs and whether the checkout has changes; "unknown" outside a git checkout."""

    def git(*arguments: str) -> str | None:
        done = subprocess.run(["git", "-C", str(project), *arguments], capture_output=True, text=True, check=False)
        return done.stdout.strip() if done.returncode == 0 else None

    revision, changes = git("rev-parse", "HEAD"), git("status", "--porcelain", "--untracked-files=no")
    dirty = "unknown" if changes is None else str(bool(changes)).lower()
    return {"mlflow.source.git.commit": revision or "unknown", "git.dirty": dirty}


class Tracking:
    """One experiment of one MLflow store."""

    def __init__(self, settings: Settings, project: Path) -> None:
        """Open the store, making it and the experiment where they do not exist.

        Raises:
            PlatformError: the store cannot be reached.
        """
        self.address = tracking_address(settings, project)
        artifacts = None
        if self.address.startswith("sqlite:///"):
            Path(self.address.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
            artifacts = (project / STORE / "artifacts").resolve().as_uri()
        try:
            self.client = MlflowClient(self.address)
            self.experiment = self._experiment(settings.tracking.experiment, artifacts)
        except MlflowException as error:
            raise PlatformError(f"MLflow at {self.address}: {str(error).splitlines()[0]}; check MLFLOW_TRACKING_URI") from None

    def _experiment(self, name: str, artifacts: str | None) -> str:
        found = self.client.get_experiment_by_name(name)
        if found is None:
            try:
                return str(self.client.create_experiment(name, artifact_location=artifacts))
            except MlflowException:
                found = self.client.get_experiment_by_name(name)  # another run may have made it just now
                if found is None:
                    raise
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
        """A run while the block lasts: FINISHED at its end, FAILED by an error, KILLED by whatever else stops it."""
        run_id = self.client.create_run(self.experiment, run_name=name, tags=dict(tags)).info.run_id
        status = "KILLED"
        try:
            yield run_id
            status = "FINISHED"
        except Exception:
            status = "FAILED"
            raise
        finally:
            self.client.set_terminated(run_id, status)

    def close_open_runs(self, flow_run_id: str, status: str) -> None:
        """End what a flow run left open when its process was killed."""
        query = f"tags.`{FLOW_RUN_TAG}` = '{flow_run_id}' and attributes.status = 'RUNNING'"
        for run in self.client.search_runs([self.experiment], query):
            self.client.set_terminated(run.info.run_id, status)

    def maker_of(self, run: StageRun, digest: str) -> str:
        """Id of the newest run that made this output of the stage; "unknown" where it was made outside a flow."""
        query = f"tags.stage = '{run.name}' and tags.`dvc.out` = '{digest}' and attributes.status = 'FINISHED'"
        found = self.client.search_runs([self.experiment], query, max_results=1, order_by=["attributes.start_time DESC"])
        return str(found[0].info.run_id) if found else "unknown"


class ParentRun:
    """The MLflow run of a flow run."""

    def __init__(self, tracking: Tracking, run_id: str, settings: Settings, tags: Tags) -> None:
        self._tracking = tracking
        self._client = tracking.client
        self.run_id = run_id
        self._settings = settings
        self._tags = tags

    @contextmanager
    def stage_run(self, run: StageRun, workspace: Path, metrics: Path | None) -> Iterator[str]:
        """A child run while a stage runs: the settings that it reads, its step metrics as they come, its digests in the end.

        Args:
            metrics: the folder whose `metrics.jsonl` the stage writes, or None where it writes none.
        """
        own = {PARENT_TAG: self.run_id, "kind": "stage", "stage": run.name, "source": run.source or "all"}
        tags = {**self._tags, **own}
        with self._tracking.run(run.name, tags) as run_id:
            self._tracking.log_params(run_id, params_of(self._settings, run))
            with nullcontext() if metrics is None else following(metrics, StepMetrics(self._client, run_id)):
                yield run_id
            inputs = {f"dvc.in.{path}": digest for path, digest in input_digests(workspace, run).items()}
            digests = {"dvc.out": output_digest(workspace, run), **inputs}
            self._client.log_batch(run_id, tags=[RunTag(key, value) for key, value in digests.items()])

    def note_restored(self, run: StageRun, workspace: Path) -> None:
        """Say which run once made a result that was restored."""
        maker = self._tracking.maker_of(run, output_digest(workspace, run))
        self._client.set_tag(self.run_id, f"restored.{run.name}", maker)

    def log_report(self, table: ScoreTable, folder: Path) -> None:
        """The matrix as flat metrics and as a table, and the report's files as artifacts."""
        now = int(time.time() * 1000)
        values = [Metric(name, value, now, 0) for name, value in matrix_metrics(table).items()]
        self._client.log_batch(self.run_id, metrics=values)
        columns = ("method", "teacher", "student", "seed", "benchmark", "domain", "in_domain", "miou", "images")
        rows = {name: [getattr(score, name) for score in table.scores] for name in columns}
        self._client.log_table(self.run_id, rows, "report/table.json")
        self._client.log_artifacts(self.run_id, str(folder), "report")

    def add_tags(self, tags: Tags) -> None:
        """Put further tags on the run, and on the stages' runs that begin from now on."""
        self._tags = {**self._tags, **tags}
        self._client.log_batch(self.run_id, tags=[RunTag(key, value) for key, value in tags.items()])

    def log_datasets(self, run_id: str, datasets: Sequence[DatasetInput]) -> None:
        """Name what a run, this one or a stage's, has read."""
        if datasets:
            self._client.log_inputs(run_id, list(datasets))


class StepMetrics:
    """Logs lines of step metrics in batches. A resumed stage repeats steps: each metric's step is logged once."""

    def __init__(self, client: MlflowClient, run_id: str) -> None:
        self._client = client
        self._run_id = run_id
        self._seen: set[tuple[str, int]] = set()

    def __call__(self, lines: list[Line]) -> None:
        """Log what is new in these lines."""
        fresh = []
        for line in lines:
            step, milliseconds = int(line["step"]), int(line["time"] * 1000)
            for name in sorted(line.keys() - {"step", "time"}):
                if (name, step) not in self._seen:
                    self._seen.add((name, step))
                    fresh.append(Metric(name, line[name], milliseconds, step))
        for start in range(0, len(fresh), BATCH):
            self._client.log_batch(self._run_id, metrics=fresh[start : start + BATCH])
