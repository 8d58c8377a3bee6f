"""Stage two: learn the task on the source domain's labels, by default with the encoder frozen."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from gkd_core.data.catalog.sources import Mix
from gkd_core.data.files.reading import LabelledImages
from gkd_core.data.order.samples import Reading
from gkd_core.models.encoder import Encoder
from gkd_core.models.segmentor import Segmentor
from gkd_core.seeding import seed_of
from gkd_core.settings import LearnTaskSettings, StreamingSettings
from gkd_core.task.batches import Batch, LabelledBatches
from gkd_core.training.checkpoint import CheckpointStore
from gkd_core.training.loop import Training, train
from gkd_core.training.metrics import MetricsSink
from gkd_core.training.optimization import decay_groups, embeddings, polynomial


@dataclass(frozen=True)
class TaskJob:
    """What stage two learns from, how its parts are mixed, and for how long.

    `loaders` processes make batches ahead of use. `streaming` is the order to read shards in; None shuffles the whole dataset.
    """

    title: str
    settings: LearnTaskSettings
    parts: Sequence[LabelledImages]
    mix: Mix
    updates: int
    seed: int
    device: str
    loaders: int = 0
    streaming: StreamingSettings | None = None


class FrozenTask(nn.Module):
    """The decoder's loss on features of an encoder that stays as it is: evaluation mode, no gradient."""

    def __init__(self, segmentor: Segmentor) -> None:
        super().__init__()
        self.segmentor = segmentor
        segmentor.encoder.eval().requires_grad_(False)
        segmentor.decoder.train()

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        decoder = self.segmentor.decoder
        with torch.no_grad():
            features = decoder.features(self.segmentor.encoder, batch.images)
        return decoder.loss(features, batch.target)


class EndToEndTask(nn.Module):
    """The task loss through decoder and encoder: the rival without distillation, and the ablation of the frozen encoder."""

    def __init__(self, segmentor: Segmentor) -> None:
        super().__init__()
        self.segmentor = segmentor.train()

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        decoder = self.segmentor.decoder
        return decoder.loss(decoder.features(self.segmentor.encoder, batch.images), batch.target)


class SingleStageTask(nn.Module):
    """Task loss and feature MSE together: conventional distillation, the rival that the method separates into stages."""

    def __init__(self, segmentor: Segmentor, teacher: Encoder, weight: float, seed: int) -> None:
        super().__init__()
        self.task = EndToEndTask(segmentor)
        # In a list, so that the teacher is neither trained, nor switched to training mode, nor saved.
        self._teacher = [teacher]
        self.weight = weight
        student = segmentor.encoder
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed_of("heads", seed))
            self.proj = nn.Sequential(nn.LayerNorm(student.dim), nn.Linear(student.dim, teacher.dim))

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        task = self.task(batch)["loss"]
        with torch.no_grad():
            target = self._teacher[0].tokens(batch.images).patches
        seen = self.proj(self.task.segmentor.encoder.tokens(batch.images).patches)
        distillation = functional.mse_loss(seen, target)
        return {"loss": task + self.weight * distillation, "loss_task": task, "loss_distillation": distillation}


def learn_task(job: TaskJob, task: nn.Module, store: CheckpointStore, sink: MetricsSink, advance: Callable[[int], None]) -> None:
    """Train whatever of `task` may be trained.

    The weights are in the task's segmentor afterwards, and the end state in the store.
    """
    settings = job.settings
    trained = [part for part in _parts(task) if any(parameter.requires_grad for parameter in part.parameters())]
    groups, schedules = [], []
    for part in trained:
        peak = settings.encoder_lr if isinstance(part, Encoder) else settings.lr
        groups += [{**group, "lr": peak} for group in decay_groups(part, settings.weight_decay, embeddings(part))]
        schedules += [polynomial(peak, job.updates, settings.poly_power)] * 2
    device = torch.device(job.device)
    reading = Reading(job.title, job.seed, job.mix, job.streaming, job.updates)
    encoder = next(module for module in task.modules() if isinstance(module, Encoder))
    batches = LabelledBatches(settings, job.parts, reading, encoder.mean.flatten().cpu())
    training = Training(
        model=task,
        optimizer=torch.optim.AdamW(groups, lr=settings.lr),
        schedules=schedules,
        batch=batches,
        prepare=lambda batch: Batch(*(part.to(device, non_blocking=True) for part in batch)),
        updates=job.updates,
        images_per_update=settings.batch_size,
        observe=lambda batch: {},
        clip_norm=settings.clip_norm,
        log_every=settings.log_every,
        checkpoint_every=settings.checkpoint_every,
        seed=seed_of(job.title, job.seed),
        precision=settings.precision,
        accumulate=settings.accumulate,
        loaders=job.loaders,
        files_of=batches.files,
    )
    train(training, store, sink, advance)


def _parts(task: nn.Module) -> list[nn.Module]:
    """Encoder, decoder and projection, whichever the task has."""
    segmentors = [module for module in task.modules() if isinstance(module, Segmentor)]
    rest = [module for name, module in task.named_children() if name == "proj"]
    return [part for segmentor in segmentors for part in (segmentor.encoder, segmentor.decoder)] + rest
