"""Workers of stage one, started in the ways that a benchmark compares, and what their updates took."""

from __future__ import annotations

import itertools
import multiprocessing
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import torch
from torch import distributed, nn

from gkd_core.cluster.group import STORE, join_by_file
from gkd_core.cluster.own_cluster import own_folder
from gkd_core.distill.job import DistillJob
from gkd_core.distill.stage_one import distill
from gkd_core.planning.chance import expected_maximum
from gkd_core.training.checkpoint import FolderStore
from gkd_core.training.loop import exchanging
from gkd_core.training.metrics import MetricsFollower, file_sink
from gkd_core.training.rank import Rank

WARM_UP_REPORTS = 1
STAMPS = "stamps.txt"
EXCHANGES = 50


@dataclass(frozen=True)
class Run:
    """The updates of one run, in seconds, its first report left out.

    Attributes:
        seconds: of an update, the median of the reports.
        computing: the same without the time that it waited for its batch.
        deviation: of workers apart, how much longer the slowest one's update takes than their mean, as the standard deviation
            of a normal distribution of which that is the expected greatest, as a share of the mean (0 where not known).
    """

    seconds: float
    computing: float
    deviation: float = 0.0

    @staticmethod
    def median(runs: Sequence[Run]) -> Run:
        return Run(*(statistics.median(column) for column in zip(*[vars(run).values() for run in runs], strict=True)))


@dataclass(frozen=True)
class Launcher:
    """Who starts the workers: of a job each, knowing nothing of each other, or of one job that they share.

    Attributes:
        apart, together: from the job, the number of workers and a folder to what their updates took.
    """

    apart: Callable[[DistillJob, int, Path], Run]
    together: Callable[[DistillJob, int, Path], Run]


def _apart_in_processes(job: DistillJob, count: int, folder: Path) -> Run:
    with own_folder() as own:
        _spawn(_alone, [(job, folder, Rank(index, count), own.path / STORE) for index in range(count)])
    return _mean(job, count, folder)


def _together_in_processes(job: DistillJob, count: int, folder: Path) -> Run:
    """By gloo, as stage one's own workers are."""
    with own_folder() as own:
        _spawn(_member, [(job, folder, Rank(index, count), own.path / STORE) for index in range(count)])
    return _read(job, folder)


def _apart_on_ray(job: DistillJob, count: int, folder: Path) -> Run:
    """As tasks, beside all that Ray itself runs."""
    import ray

    from gkd_core.cluster.connect import connected

    with own_folder() as own, connected(count):
        task = ray.remote(num_cpus=1, max_retries=0)(_alone)
        ray.get([task.remote(job, folder, Rank(index, count), own.path / STORE) for index in range(count)])
    return _mean(job, count, folder)


def _together_on_ray(job: DistillJob, count: int, folder: Path) -> Run:
    """Workers of Ray Train, as stage one has them."""
    from gkd_core.cluster.train import Group, distill_on_ray

    distill_on_ray(job, Group(count, count, 0, start_minutes=5), folder)
    return _read(job, folder)


LAUNCHERS = {
    "ray": Launcher(_apart_on_ray, _together_on_ray),
    "processes": Launcher(_apart_in_processes, _together_in_processes),
}


def exchange_seconds(shapes: Sequence[torch.Size]) -> tuple[float, float]:
    """What it takes two processes to have each other's gradients, and to sum a single number, in seconds.

    The first is by how much longer a forward and a backward pass take that compute next to nothing, with parameters of
    these shapes, once they are wrapped as stage one wraps its model: copies, graph traversal and buffers count too.
    """
    context = multiprocessing.get_context("spawn")
    results = context.SimpleQueue()
    with own_folder() as own:
        _spawn(_exchange, [(index, own.path / STORE, shapes, results) for index in range(2)])
    whole, empty = results.get()
    return whole, empty


def _alone(job: DistillJob, folder: Path, rank: Rank, store: Path) -> None:
    _join(rank.index, rank.count, store)
    distributed.barrier()  # so that none has a head start
    distributed.destroy_process_group()
    stamps: list[float] = []
    own = folder / str(rank.index)
    distill(job, Rank(), FolderStore(own), file_sink(own), lambda done: stamps.append(time.perf_counter()))
    (own / STAMPS).write_text("\n".join(map(str, stamps)))


def _member(job: DistillJob, folder: Path, rank: Rank, store: Path) -> None:
    _join(rank.index, rank.count, store)
    own = folder if rank.index == 0 else folder / str(rank.index)
    distill(job, rank, FolderStore(own), file_sink(own), lambda done: None)
    distributed.destroy_process_group()


def _join(index: int, count: int, store: Path) -> None:
    join_by_file(store, "gloo", index, count, timedelta(minutes=30))


def _exchange(
    index: int, store: Path, shapes: Sequence[torch.Size], results: multiprocessing.SimpleQueue[tuple[float, float]]
) -> None:
    torch.set_num_threads(1)
    _join(index, 2, store)
    model = _Sum(shapes)
    alone = _median_seconds(lambda: _pass(model))
    wrapped = exchanging(model)
    together = _median_seconds(lambda: _pass(wrapped))
    number = torch.ones(1)
    empty = _median_seconds(lambda: distributed.all_reduce(number))
    if index == 0:
        results.put((together - alone, empty))
    distributed.destroy_process_group()


class _Sum(nn.Module):
    """Parameters of given shapes, and hardly any arithmetic."""

    def __init__(self, shapes: Sequence[torch.Size]) -> None:
        super().__init__()
        self.parts = nn.ParameterList([nn.Parameter(torch.zeros(shape)) for shape in shapes])

    def forward(self) -> torch.Tensor:
        return torch.stack([part.sum() for part in self.parts]).sum()


def _pass(model: nn.Module) -> None:
    model.zero_grad(set_to_none=True)
    model().backward()


def _median_seconds(what: Callable[[], object]) -> float:
    seconds = []
    for _ in range(EXCHANGES):
        distributed.barrier()
        began = time.perf_counter()
        what()
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds)


def _spawn(target: Callable[..., None], arguments: Sequence[tuple[object, ...]]) -> None:
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=target, args=each) for each in arguments]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    if any(process.exitcode for process in processes):
        raise SystemExit(f"a worker ended with {[process.exitcode for process in processes]}")


def _mean(job: DistillJob, count: int, folder: Path) -> Run:
    runs = [_read(job, folder / str(index)) for index in range(count)]
    steps = [_steps(job, folder / str(index) / STAMPS) for index in range(count)]
    mean = statistics.fmean(itertools.chain(*steps))
    slowest = statistics.fmean(map(max, zip(*steps, strict=True)))
    deviation = (slowest - mean) / mean / expected_maximum(count) if count > 1 else 0.0
    return Run(statistics.fmean(run.seconds for run in runs), statistics.fmean(run.computing for run in runs), deviation)


def _read(job: DistillJob, folder: Path) -> Run:
    lines = MetricsFollower(folder).read()[WARM_UP_REPORTS:]
    seconds = [job.settings.batch_size / line["images_per_second"] for line in lines]
    computing = [each * (1 - line["waiting_share"]) for each, line in zip(seconds, lines, strict=True)]
    return Run(statistics.median(seconds), statistics.median(computing))


def _steps(job: DistillJob, file: Path) -> list[float]:
    """Seconds of each update."""
    stamps = [float(line) for line in file.read_text().split()][WARM_UP_REPORTS * job.settings.log_every :]
    return [after - before for before, after in itertools.pairwise(stamps)]
