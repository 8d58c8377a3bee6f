"""Evaluation on Ray: the same `measure` as in one process, each worker on its share of a domain's images."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
import torch
from ray.exceptions import RayActorError, RayTaskError
from ray.util import ActorPool
from torch import Tensor

from gkd_core.cluster.connect import connected
from gkd_core.cluster.room import wait_for_room
from gkd_core.errors import GkdError, PlatformError, TransientError
from gkd_core.evaluate.matrix import ScoredImages, measure
from gkd_core.messages import last_words, one_line
from gkd_core.models.segmentor import load_segmentor
from gkd_core.settings import EvaluateSettings
from gkd_core.training.cost import Meter

SHARDS_A_WORKER = 8  # so that progress shows and a slow worker does not keep the others waiting
RETRIES = 2  # of a shard whose worker was lost; measuring it again gives the same


@dataclass(frozen=True)
class Share:
    """What a worker needs to know once: the segmentor's folder, how it is measured, where its cost is noted; and how long it may
    take Ray to start it.
    """

    folder: Path
    settings: EvaluateSettings
    device: str
    threads: int
    run_folder: Path
    start_minutes: float


class ShardWorker:
    """Keeps the segmentor loaded and measures one shard after the other."""

    def __init__(self, share: Share, number: int) -> None:
        self._meter = Meter(share.run_folder, f"worker-{number}")
        torch.set_num_threads(share.threads)
        self._share = share
        self._device = torch.device(share.device)
        self._model = load_segmentor(share.folder).to(self._device)

    def measure(self, shard: ScoredImages) -> tuple[int, Tensor]:
        """Number of images, and their confusion matrix."""
        matrix = measure(self._model, shard, self._share.settings, self._device, lambda done: None)
        # After each shard, as the actor is killed in the end: it has no last word.
        self._meter.write()
        return len(shard.pairs), matrix


@contextmanager
def measuring_on_ray(share: Share) -> Iterator[Callable[[ScoredImages, Callable[[int], None]], Tensor]]:
    """Give a function that measures a domain on `share.settings.workers` workers; they live as long as the block.

    Every image is in exactly one shard and the counts are integers, so the sum is the matrix of one process, exactly.

    Raises:
        GkdError: a worker's own error, as it was raised there.
        PlatformError: Ray has too few processors or GPUs, its nodes cannot reach each other, or a worker's program failed.
        TransientError: Ray could not start, or lost its workers too often.
    """
    workers = share.settings.workers
    with connected(workers):
        _check_room(workers, share.device)
        wait_for_room("evaluate", workers, share.device, share.start_minutes)
        worker = ray.remote(ShardWorker).options(
            num_cpus=1, num_gpus=int(share.device == "cuda"), max_restarts=RETRIES, max_task_retries=RETRIES
        )
        actors: list[Any] = [worker.remote(share, number) for number in range(workers)]
        pool = ActorPool(actors)
        try:
            yield lambda domain, advance: _measure(pool, domain, workers * SHARDS_A_WORKER, advance)
        finally:
            for actor in actors:
                ray.kill(actor)


def _measure(pool: ActorPool, domain: ScoredImages, shards: int, advance: Callable[[int], None]) -> Tensor:
    shards = min(shards, max(1, len(domain.pairs)))
    total, done = torch.zeros(domain.classes, domain.classes, dtype=torch.int64), 0
    try:
        parts = pool.map_unordered(
            lambda actor, shard: actor.measure.remote(shard), [domain.shard(index, shards) for index in range(shards)]
        )
        for images, matrix in parts:
            total, done = total + matrix, done + images
            advance(done)
    except RayTaskError as error:
        if isinstance(error.cause, GkdError):
            raise error.cause from None
        raise PlatformError(f"evaluate: a Ray worker failed: {last_words(error.cause, 400)}") from error
    except RayActorError as error:
        raise TransientError(
            f"evaluate: Ray lost a worker more than {RETRIES} times ({one_line(error)}); "
            "give it more memory, or set evaluate.workers=0"
        ) from None
    return total


def _check_room(workers: int, device: str) -> None:
    """Refuse what Ray would wait for forever."""
    kind = "GPU" if device == "cuda" else "CPU"
    room = int(ray.cluster_resources().get(kind, 0))
    if room < workers:
        raise PlatformError(
            f"evaluate.workers: {workers} workers need {workers} {kind}s, and Ray has {room}; set evaluate.workers={room} or less"
        )
