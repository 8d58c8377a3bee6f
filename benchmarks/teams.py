"""Workers of stage one, started in the ways that a benchmark compares, and what their updates took."""

from __future__ import annotations

import itertools
import multiprocessing
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.synchronize import Barrier
from pathlib import Path

import torch
from torch import distributed

from gkd_core.distill.job import DistillJob
from gkd_core.distill.stage_one import distill
from gkd_core.loopback import free_port
from gkd_core.training.checkpoint import FolderStore
from gkd_core.training.metrics import MetricsFollower, file_sink
from gkd_core.training.rank import Rank

WARM_UP_REPORTS = 1
STAMPS = "stamps.txt"
EXCHANGES = 50
PATIENCE = 600.0


@dataclass(frozen=True)
class Run:
    """The updates of one run, in seconds, its first report left out.

    Attributes:
        seconds: of an update, the median of the reports.
        computing: the same without the time that it waited for its batch.
        deviation: standard deviation of an update's time as a share of it, from the middle half of them (0 where not known).
    """

    seconds: float
    computing: float
    deviation: float

    @staticmethod
    def median(runs: Sequence[Run]) -> Run:
        return Run(*(statistics.median(column) for column in zip(*[vars(run).values() for run in runs], strict=True)))


def side_by_side(job: DistillJob, count: int, folder: Path) -> Run:
    """`count` processes that each do the whole job, at the same time and knowing nothing of each other."""
    barrier = multiprocessing.get_context("spawn").Barrier(count)
    folders = [folder / str(index) for index in range(count)]
    _spawn(_alone, [(job, each, barrier) for each in folders])
    runs = [_read(job, each) for each in folders]
    return Run(*(statistics.fmean(column) for column in zip(*[vars(run).values() for run in runs], strict=True)))


def in_processes(job: DistillJob, count: int, folder: Path) -> Run:
    """`count` processes that share each update's batch, by gloo."""
    port = free_port()
    _spawn(_member, [(job, folder, Rank(index, count), port) for index in range(count)])
    return _read(job, folder)


def on_ray(job: DistillJob, count: int, folder: Path) -> Run:
    """`count` workers of Ray Train, as stage one has them."""
    from gkd_core.adapters.ray_train import Group, distill_on_ray

    distill_on_ray(job, Group(count, count, 0), folder)
    return _read(job, folder)


LAUNCHERS: dict[str, Callable[[DistillJob, int, Path], Run]] = {"ray": on_ray, "processes": in_processes}


def exchange_seconds(size: int, buckets: int) -> tuple[float, float]:
    """Seconds in which two processes sum so many bytes, cut into buckets, and in which they sum a single number."""
    context = multiprocessing.get_context("spawn")
    results = context.SimpleQueue()
    port = free_port()
    _spawn(_exchange, [(index, port, size, buckets, results) for index in range(2)])
    whole, empty = results.get()
    return whole, empty


def _alone(job: DistillJob, folder: Path, barrier: Barrier) -> None:
    # Built once before all start together, so that none has a head start.
    barrier.wait(PATIENCE)
    _distill(job, folder, Rank())


def _member(job: DistillJob, folder: Path, rank: Rank, port: int) -> None:
    _join(rank.index, rank.count, port)
    _distill(job, folder, rank)
    distributed.destroy_process_group()


def _distill(job: DistillJob, folder: Path, rank: Rank) -> None:
    stamps: list[float] = []
    own = folder if rank.index == 0 else folder / str(rank.index)
    distill(job, rank, FolderStore(own), file_sink(own), lambda done: stamps.append(time.perf_counter()))
    (own / STAMPS).write_text("\n".join(map(str, stamps)))


def _join(index: int, count: int, port: int) -> None:
    distributed.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=index, world_size=count)


def _exchange(index: int, port: int, size: int, buckets: int, results: multiprocessing.SimpleQueue[tuple[float, float]]) -> None:
    torch.set_num_threads(1)
    _join(index, 2, port)
    whole = _median_seconds([torch.ones(size // buckets // 4) for _ in range(buckets)])
    empty = _median_seconds([torch.ones(1)])
    if index == 0:
        results.put((whole, empty))
    distributed.destroy_process_group()


def _median_seconds(tensors: Sequence[torch.Tensor]) -> float:
    seconds = []
    for _ in range(EXCHANGES):
        distributed.barrier()
        began = time.perf_counter()
        for tensor in tensors:
            distributed.all_reduce(tensor)
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


def _read(job: DistillJob, folder: Path) -> Run:
    lines = MetricsFollower(folder).read()[WARM_UP_REPORTS:]
    seconds = [job.settings.batch_size / line["images_per_second"] for line in lines]
    computing = [each * (1 - line["waiting_share"]) for each, line in zip(seconds, lines, strict=True)]
    return Run(statistics.median(seconds), statistics.median(computing), _deviation(job, folder / STAMPS))


def _deviation(job: DistillJob, file: Path) -> float:
    if not file.is_file():
        return 0.0
    stamps = [float(line) for line in file.read_text().split()][WARM_UP_REPORTS * job.settings.log_every :]
    steps = [after - before for before, after in itertools.pairwise(stamps)]
    low, middle, high = statistics.quantiles(steps, n=4)
    return (high - low) / 1.349 / middle  # quartiles of a normal distribution lie 1.349 deviations apart
