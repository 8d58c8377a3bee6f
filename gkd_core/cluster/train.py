"""Stage one on Ray Train: the same `distill` as in one process, in a group of workers that Ray starts and rebuilds."""

from __future__ import annotations

import itertools
import logging
import pickle
import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import ray
import ray.train
import ray.train.torch
import torch
from ray.exceptions import RayError
from ray.train import Checkpoint, CheckpointConfig, Result, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer
from ray.train.v2.api.config import FailureConfig  # as ray.train has it, of which the types know the former one
from ray.train.v2.api.exceptions import TrainingFailedError, WorkerGroupError

from gkd_core.cluster.connect import connected
from gkd_core.cluster.group import GroupConfig
from gkd_core.cluster.nodes import Nodes, nodes
from gkd_core.cluster.room import wait_for_room
from gkd_core.distill.job import DistillJob, check_batch_divides, divides
from gkd_core.errors import GkdError, PlatformError, TransientError
from gkd_core.files import scratch_folder
from gkd_core.messages import last_words
from gkd_core.training.checkpoint import FILE, State, is_checkpoint, read_state, write_state
from gkd_core.training.cost import WORKER, noting_cost
from gkd_core.training.metrics import MetricsSink, following
from gkd_core.training.progress import progress
from gkd_core.training.rank import Rank

STARTS = 5  # of one group, beyond the first
RAY_FOLDER = "ray"  # below the run folder: Ray's own checkpoints and notes
log = logging.getLogger(__name__)


class ReportedStore:
    """A checkpoint store whose states travel as Ray Train checkpoints. Every rank calls `save`: reporting is a barrier."""

    def __init__(self, folder: Path) -> None:
        self.place = str(folder / RAY_FOLDER)

    def load(self) -> State | None:
        checkpoint = ray.train.get_checkpoint()
        if checkpoint is None:
            return None
        with checkpoint.as_directory() as folder:
            return read_state(Path(folder) / FILE)

    def save(self, state: State) -> None:
        metrics = {"step": state["step"]}
        if ray.train.get_context().get_world_rank() != 0:
            ray.train.report(metrics)
            return
        with scratch_folder("checkpoint") as folder:
            write_state(state, folder / FILE)
            ray.train.report(metrics, checkpoint=Checkpoint.from_directory(folder))


@dataclass(frozen=True)
class Group:
    """The workers of a run.

    Attributes:
        least, most: how many; a group is started with as many as the cluster has room for, and again when that changes.
        max_failures: how often a lost group is rebuilt.
        start_minutes: for the cluster to have room for it.
    """

    least: int
    most: int
    max_failures: int
    start_minutes: float

    @property
    def size(self) -> Any:
        """As Ray takes it: a number, or the least and the most of an elastic group."""
        return self.least if self.least == self.most else (self.least, self.most)


def distill_on_ray(job: DistillJob, group: Group, folder: Path) -> State:
    """Run a job on a group of Ray Train workers and give its end state.

    Checkpoints lie in `folder`, or where the nodes share with us (`nodes`), so that a later call with the same folder goes
    on where this one stopped. What a worker itself found wrong would be wrong again, and ends the run at once.

    Raises:
        GkdError: a worker's own error, as it was raised there.
        TransientError: Ray could not start, or lost its workers too often.
        PlatformError: the cluster has no room for the workers, or its nodes cannot reach each other.
    """
    # Here rather than in the workers: a group of them takes half a minute to start.
    check_batch_divides(job.settings, group.least)
    with connected(group.most):
        try:
            with (
                _own_ctrl_c(),
                progress(job.title, job.updates) as advance,
                following(folder, lambda lines: advance(int(lines[-1]["step"]))),
            ):
                result = _fit(job, group, folder)
        except RayError as error:
            raise TransientError(f"{job.title}: Ray was lost: {last_words(error, 400)}") from None
    if result.checkpoint is None:
        raise PlatformError(f"{job.title}: Ray Train ended without a checkpoint; see {folder}")
    with result.checkpoint.as_directory() as last:
        return read_state(Path(last) / FILE)


def _fit(job: DistillJob, group: Group, folder: Path) -> Result:
    """Train, with a new group of workers after each failure that another group may not meet.

    Ray's own retries (`FailureConfig.max_failures`) do not look at what failed, so they are off, and each new group is a new
    `fit` of the same name and storage, which goes on from the newest checkpoint.
    """
    place = nodes.get()
    path, file_system = place.storage(folder)
    for failures in itertools.count(1):
        wait_for_room(job.title, group.least, job.device, group.start_minutes)
        trainer = TorchTrainer(
            _work,
            # Sealed, so that Ray's controller and other helpers of its need not import what only the workers use.
            train_loop_config={"job": pickle.dumps(job), "nodes": pickle.dumps(place), "folder": str(folder)},
            scaling_config=ScalingConfig(num_workers=group.size, use_gpu=job.device == "cuda"),
            torch_config=GroupConfig(backend="nccl" if job.device == "cuda" else "gloo"),
            run_config=RunConfig(
                name=RAY_FOLDER,
                storage_path=path,
                storage_filesystem=file_system,
                # A group that Ray gave room and could not start, a minute each time.
                failure_config=FailureConfig(max_failures=0, controller_failure_limit=STARTS),  # type: ignore[call-arg]  # of V2
                checkpoint_config=CheckpointConfig(num_to_keep=2),
            ),
        )
        try:
            return trainer.fit()
        except TrainingFailedError as error:
            _raise_own(error)
            if failures > group.max_failures:
                raise _gave_up(error, job.title, failures) from None
            log.warning("%s: worker group %d failed (%s); starting the next", job.title, failures, last_words(error, 400)[:200])
        except OSError as error:
            if not _is_of_a_store(error):
                raise
            raise TransientError(f"{job.title}: the bucket of checkpoints at {path} fails: {last_words(error, 400)}") from None
    raise AssertionError("unreachable")


def _work(config: Mapping[str, Any]) -> None:
    from gkd_core.distill.stage_one import distill

    place: Nodes = pickle.loads(config["nodes"])
    place.prepare()
    folder = Path(config["folder"])
    # Ray deals out the machine's devices: this worker's own need not be the first.
    job = replace(pickle.loads(config["job"]), device=str(ray.train.torch.get_device()))
    store = ReportedStore(folder)
    rank = _rank(job)
    if rank is None:
        _stand_by(job, store)
        return
    sink = _with_workers(place.sink(folder), rank.count)
    try:
        with noting_cost(folder, f"{WORKER}{rank.index}"):
            distill(job, rank, store, sink, lambda done: None)
    finally:
        place.finish(folder)


def _with_workers(sink: MetricsSink, count: int) -> MetricsSink:
    """A sink that also notes how many workers learn, which in an elastic group changes."""
    return lambda step, values: sink(step, {**values, "workers": count})


def _rank(job: DistillJob) -> Rank | None:
    """Who this worker is among those that share out the batch evenly; None where it is one too many for that.

    Only in an elastic group may there be such: a batch of 512 on seven workers is learnt by four of them.
    """
    context = ray.train.get_context()
    index, world = context.get_world_rank(), context.get_world_size()
    count = next(count for count in range(world, 0, -1) if divides(job.settings, count))
    if count == world:
        return Rank(index, world)
    group = torch.distributed.new_group(list(range(count)))  # by all of them, those that stand by too
    return Rank(index, count, group) if index < count else None


def _stand_by(job: DistillJob, store: ReportedStore) -> None:
    """Take part in what all workers of a group must do together, and that is to report each checkpoint."""
    state = store.load()
    start = 0 if state is None else int(state["step"])
    for done in range(start + 1, job.updates + 1):
        if is_checkpoint(done, job.settings.checkpoint_every, job.updates):
            ray.train.report({"step": done})


@contextmanager
def _own_ctrl_c() -> Iterator[None]:
    """Ctrl-C as in any other stage: `KeyboardInterrupt`.

    Ray Train's own handler aborts the run and then ends the process, with a code that says nothing; and it stays when the
    run is over.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handler = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SystemExit as end:
        if end.code in (0, 1):
            raise KeyboardInterrupt from None
        raise  # Ray's handler of SIGTERM ends with the signal's number
    finally:
        signal.signal(signal.SIGINT, handler)


def _failures(error: TrainingFailedError) -> list[Exception]:
    """What the workers raised, or how they ended, as far as it is known."""
    failures = error.worker_failures.values() if isinstance(error, WorkerGroupError) else ()
    return [getattr(failure, "cause", failure) for failure in failures]


def _raise_own(error: TrainingFailedError) -> None:
    """Raise the worker's error that a user can act on, where there is one."""
    for failure in _failures(error):
        if isinstance(failure, GkdError):
            raise failure from None


def _gave_up(error: TrainingFailedError, title: str, groups: int) -> PlatformError:
    """The error after the last group: transient unless all that is known is an exception of a worker's program."""
    failures = _failures(error)
    passing = not failures or any(_is_loss(failure) or _is_of_a_store(failure) for failure in failures)
    kind = TransientError if passing else PlatformError
    reason = last_words(failures[0] if failures else error, 400)
    return kind(f"{title}: Ray Train gave up after {groups} groups of workers: {reason}")


def _is_loss(failure: Exception) -> bool:
    """Whether Ray says it of a worker, and not the worker's program of itself."""
    return type(failure).__module__.partition(".")[0] == "ray"


def _is_of_a_store(failure: Exception) -> bool:
    """Whether it is the bucket with the checkpoints that failed: pyarrow says so without a number of the operating system."""
    return isinstance(failure, OSError) and failure.errno is None
