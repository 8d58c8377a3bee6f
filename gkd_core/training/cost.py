"""What a stage costs: each of its processes notes what it uses, next to the stage's checkpoints.

A process that is killed has no last word, so each writes every few seconds. The notes of a stopped attempt stay with its
checkpoint; the attempt that goes on from there adds to them, so that a stage's cost is that of all its attempts. They lie in
the run folder, outside the stage's outputs, which time must not change.
"""

from __future__ import annotations

import logging
import os
import resource
import shutil
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from pydantic import Field

from gkd_core.errors import GkdError
from gkd_core.files import is_temporary, is_temporary_of_any_version
from gkd_core.notes import ASIDE, clear_folder, is_aside, remove, set_aside
from gkd_core.records import Record
from gkd_core.training.metrics import FILE as METRICS
from gkd_core.training.metrics import Line, MetricsFollower

FOLDER = "costs"
STAGE = "stage"  # the role of the process that runs the stage
WORKER = "worker-"  # how the roles of the others begin
SPEED = "images_per_second"
# What a stage notes beside its checkpoints: where there is no more in its run folder, there is nothing to go on from.
NOTES = {FOLDER, METRICS, "student.json"}
WRITE_SECONDS = 5.0
KIBI = 1024
LOST = "what the stage costs is not known"
LOG = logging.getLogger(__name__)


class ProcessCost(Record):
    """What one process has used since its `Meter` was made. Memory in bytes.

    Attributes:
        role: `stage`, or a worker's name; a worker that was replaced has the same role as its successor.
        finished: whether the work ended without an error.
        cpu_seconds: of the process, and of its children that have ended.
        gpu: whether it worked on a GPU.
        peak_host_bytes: largest resident set of the process itself.
        peak_gpu_bytes: most that torch has had allocated at once.
    """

    role: str
    finished: bool
    seconds: float = Field(ge=0, allow_inf_nan=False)
    cpu_seconds: float = Field(ge=0, allow_inf_nan=False)
    gpu: bool
    peak_host_bytes: int = Field(ge=0)
    peak_gpu_bytes: int = Field(ge=0)


class StageCost(Record):
    """What a stage has used over all its attempts.

    Attributes:
        attempts: processes that have run the stage, the last of which finished it.
        seconds: wall-clock time of the stage's own processes, those of stopped attempts included.
        cpu_seconds, gpu_seconds: over all processes; a GPU counts as long as a process of the stage works on it.
        peak_host_bytes: of each role the largest, summed: what the stage needs at most.
        peak_gpu_bytes: the largest of any process: what one GPU must hold.
        gpus: processes on a GPU of their own.
        updates: of the training; 0 where nothing is trained.
        images_per_second: mean speed of the training; None where nothing is trained.
        lost: names of notes that were damaged: where there are any, the figures lack theirs and are no sums.
    """

    attempts: int
    seconds: float
    cpu_seconds: float
    gpu_seconds: float
    peak_host_bytes: int
    peak_gpu_bytes: int
    gpus: int
    updates: int
    images_per_second: float | None
    lost: tuple[str, ...] = ()


class Meter:
    """Counts what this process uses from when it is made; `write` notes the state so far."""

    def __init__(self, run_folder: Path, role: str) -> None:
        self._role = role
        self._path = run_folder / FOLDER / f"{role}-{time.time_ns()}-{os.getpid()}.json"
        clear_folder(self._path.parent, LOST)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._told = False
        self._began, self._cpu_before = time.monotonic(), _cpu_seconds()

    def write(self, finished: bool = False) -> None:
        """Note what was used so far. A failure to write is logged once: no work depends on it."""
        gpu, peak_gpu = _gpu_memory()
        cost = ProcessCost(
            role=self._role,
            finished=finished,
            seconds=time.monotonic() - self._began,
            cpu_seconds=_cpu_seconds() - self._cpu_before,
            gpu=gpu,
            peak_host_bytes=_peak_host_bytes(),
            peak_gpu_bytes=peak_gpu,
        )
        try:
            cost.write(self._path)
        except OSError as error:
            if not self._told:
                LOG.warning("%s: cannot be written (%s); the cost lacks what is used from now on", self._path, error.strerror)
            self._told = True


@contextmanager
def noting_cost(run_folder: Path, role: str = STAGE) -> Iterator[None]:
    """Note what this process uses while the block lasts, every few seconds and at the end.

    A stage that ends with an error and leaves nothing to go on from leaves no notes either, of its workers' neither.
    """
    missing = [folder for folder in (run_folder, *run_folder.parents) if not folder.exists()]
    if role == STAGE:
        _forget_what_is_settled(run_folder)
    meter, ended = Meter(run_folder, role), threading.Event()
    meter.write()

    def write() -> None:
        while not ended.wait(WRITE_SECONDS):
            meter.write()

    thread = threading.Thread(target=write, name=f"cost of {run_folder.name}", daemon=True)
    thread.start()
    finished = failed = False
    try:
        yield
        finished = True
    except Exception:
        failed = True
        raise
    finally:
        ended.set()
        thread.join()
        meter.write(finished)
        if failed and role == STAGE and not _checkpoint_left(run_folder):
            _clear(run_folder, missing)


def read_cost(run_folder: Path) -> StageCost | None:
    """The cost of a stage by the notes in its run folder; None where there are none.

    A damaged note is set aside, now or when the stage began, and the cost says that it lacks it.
    """
    costs = _read_notes(run_folder, "*")
    trained, lost = _trained(run_folder)
    lost = (*_set_aside_before(run_folder), *lost)
    if not costs and not lost:
        return None
    own = [cost for cost in costs if cost.role == STAGE]
    return StageCost(
        attempts=len(own),
        seconds=sum(cost.seconds for cost in own),
        cpu_seconds=sum(cost.cpu_seconds for cost in costs),
        gpu_seconds=sum(cost.seconds for cost in costs if cost.gpu),
        peak_host_bytes=sum(
            max(cost.peak_host_bytes for cost in costs if cost.role == role) for role in {cost.role for cost in costs}
        ),
        peak_gpu_bytes=max((cost.peak_gpu_bytes for cost in costs), default=0),
        gpus=len({cost.role for cost in costs if cost.gpu}),
        updates=max((int(line["step"]) for line in trained), default=0),
        images_per_second=mean_speed(trained),
        lost=lost,
    )


def _read_notes(run_folder: Path, role: str) -> list[ProcessCost]:
    """The notes of a role, oldest first; a damaged one is set aside."""
    folder, costs = run_folder / FOLDER, []
    clear_folder(folder, LOST)
    for path in sorted(folder.glob(f"{role}-*.json")):
        if is_temporary(path.name):
            continue
        try:
            costs.append(ProcessCost.read(path))
        except GkdError:
            set_aside(path, "not a note of this version", LOST)
        except (OSError, ValueError) as error:
            set_aside(path, error, LOST)
    return costs


def _trained(run_folder: Path) -> tuple[list[Line], tuple[str, ...]]:
    """Step metrics of a training, and the name of their file where some are missing.

    A line cut short by a kill is written again by the attempt that goes on: nothing is missing while steps are evenly spaced.
    """
    try:
        found = MetricsFollower(run_folder).look()
    except OSError as error:
        set_aside(run_folder / METRICS, error, LOST)
        return [], ()
    trained = [line for line in found.lines if line.get(SPEED, 0) > 0]
    steps = sorted({int(line["step"]) for line in trained})
    # The last may come earlier than a whole span after the one before.
    even = all(step == number * steps[0] for number, step in enumerate(steps[:-1], 1)) and (
        not steps or steps[-1] <= len(steps) * steps[0]
    )
    whole = not found.malformed or (not found.ends_malformed and even)
    return trained, () if whole else (METRICS,)


def _set_aside_before(run_folder: Path) -> tuple[str, ...]:
    """Names of the notes that were damaged."""
    places = [path for folder in (run_folder, run_folder / FOLDER) for path in folder.glob(f"*{ASIDE}")]
    return tuple(sorted(path.name.removesuffix(ASIDE) for path in places))


def mean_speed(lines: Sequence[Line]) -> float | None:
    """Images per second over a whole training, from its step metrics; None where there are none.

    Each line's speed is that since the line before it, so speeds are weighted by updates over speed: by time. A resumed
    training repeats steps; of each step the last line counts.
    """
    speeds = {int(line["step"]): line[SPEED] for line in lines}
    updates = time_taken = 0.0
    before = 0
    for step, speed in sorted(speeds.items()):
        updates += step - before
        time_taken += (step - before) / speed
        before = step
    return updates / time_taken if time_taken else None


def _forget_what_is_settled(run_folder: Path) -> None:
    """Open a new account where the last is closed: the stage was finished, and no checkpoint of it is left to go on from."""
    own = _read_notes(run_folder, STAGE)
    if any(cost.finished for cost in own) and not _checkpoint_left(run_folder):
        for path in (run_folder / FOLDER, *run_folder.glob(f"*{ASIDE}")):
            remove(path)


def _checkpoint_left(run_folder: Path) -> bool:
    """Whether there is more than notes, sound or damaged, and what a killed process has not finished writing."""
    names = (path.name for path in run_folder.iterdir())
    return any(name not in NOTES and not is_aside(name) and not is_temporary_of_any_version(name) for name in names)


def _clear(run_folder: Path, missing: list[Path]) -> None:
    """Remove the notes, and of the folders that were not there before, innermost first, those that are empty then."""
    shutil.rmtree(run_folder / FOLDER, ignore_errors=True)
    # A stage beside this one may put its own there at this moment: then the folder stays.
    with suppress(OSError):
        for folder in missing:
            folder.rmdir()


def _cpu_seconds() -> float:
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def _peak_host_bytes() -> int:
    """Largest resident set of this program, in bytes.

    Linux's `ru_maxrss` starts at that of the process that started this one; the kernel's own high-water mark does not.
    """
    try:
        with open("/proc/self/status", encoding="ascii") as status:
            return next(int(line.split()[1]) * KIBI for line in status if line.startswith("VmHWM:"))
    except (OSError, StopIteration):
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * KIBI


def _gpu_memory() -> tuple[bool, int]:
    """Whether this process works on GPUs, and the most bytes that it had allocated there. Does not itself load torch."""
    torch = sys.modules.get("torch")
    cuda = getattr(torch, "cuda", None)  # absent while another thread is importing torch
    if cuda is None or not hasattr(cuda, "is_initialized") or not cuda.is_initialized():
        return False, 0
    return True, sum(cuda.max_memory_allocated(device) for device in range(cuda.device_count()))
