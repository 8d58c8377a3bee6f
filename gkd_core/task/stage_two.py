"""Stage two: learn the task on the source domain's labels, by default with the encoder frozen."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from gkd_core.data.reading import Pair, read_pair
from gkd_core.data.sampling import batch_indices
from gkd_core.data.store import SampleStore
from gkd_core.data.taxonomy import IGNORE, LabelEncoding
from gkd_core.data.transforms import jitter_colors, labelled_crop
from gkd_core.models.encoder import Encoder
from gkd_core.models.segmentor import Segmentor
from gkd_core.seeding import generator, seed_of
from gkd_core.settings import LearnTaskSettings
from gkd_core.training.checkpoint import CheckpointStore
from gkd_core.training.loop import Training, train
from gkd_core.training.metrics import MetricsSink
from gkd_core.training.schedule import decay_groups, polynomial

Batch = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class TaskJob:
    """What stage two learns from, and for how long."""

    title: str
    settings: LearnTaskSettings
    pairs: Sequence[Pair]
    encoding: LabelEncoding
    updates: int
    seed: int
    device: str


class FrozenTask(nn.Module):
    """The decoder's loss on features of an encoder that stays as it is: evaluation mode, no gradient."""

    def __init__(self, segmentor: Segmentor) -> None:
        super().__init__()
        self.segmentor = segmentor
        segmentor.encoder.eval().requires_grad_(False)
        segmentor.decoder.train()

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        images, target = batch
        with torch.no_grad():
            features = self.segmentor.decoder.features(self.segmentor.encoder, images)
        return {"loss": segmentation_loss(self.segmentor.decoder(features), target)}


class EndToEndTask(nn.Module):
    """The task loss through decoder and encoder: the rival without distillation."""

    def __init__(self, segmentor: Segmentor) -> None:
        super().__init__()
        self.segmentor = segmentor.train()

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        images, target = batch
        features = self.segmentor.decoder.features(self.segmentor.encoder, images)
        return {"loss": segmentation_loss(self.segmentor.decoder(features), target)}


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
        images, _ = batch
        task = self.task(batch)["loss"]
        with torch.no_grad():
            target = self._teacher[0].tokens(images).patches
        distillation = functional.mse_loss(self.proj(self.task.segmentor.encoder.tokens(images).patches), target)
        return {"loss": task + self.weight * distillation, "loss_task": task, "loss_distillation": distillation}


def segmentation_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Cross entropy of logits (B, K, h, w), resampled to the target (B, H, W), over the pixels that count."""
    full = functional.interpolate(logits, size=target.shape[-2:], mode="bilinear", align_corners=False)
    counted = (target != IGNORE).sum().clamp_min(1)
    return functional.cross_entropy(full, target, ignore_index=IGNORE, reduction="sum") / counted


def learn_task(job: TaskJob, task: nn.Module, store: CheckpointStore, sink: MetricsSink, advance: Callable[[int], None]) -> None:
    """Train whatever of `task` may be trained.

    The weights are in the task's segmentor afterwards, and the end state in the store.
    """
    settings = job.settings
    trained = [part for part in _parts(task) if any(parameter.requires_grad for parameter in part.parameters())]
    groups, schedules = [], []
    for part in trained:
        peak = settings.encoder_lr if isinstance(part, Encoder) else settings.lr
        groups += [{**group, "lr": peak} for group in decay_groups([part], settings.weight_decay)]
        schedules += [polynomial(peak, job.updates, settings.poly_power)] * 2
    training = Training(
        model=task,
        optimizer=torch.optim.AdamW(groups, lr=settings.lr),
        schedules=schedules,
        batch=_batches(job),
        updates=job.updates,
        images_per_update=settings.batch_size,
        observe=lambda batch: {},
        log_every=settings.log_every,
        checkpoint_every=settings.checkpoint_every,
    )
    train(training, store, sink, advance)


def _parts(task: nn.Module) -> list[nn.Module]:
    """Encoder, decoder and projection, whichever the task has."""
    segmentors = [module for module in task.modules() if isinstance(module, Segmentor)]
    rest = [module for name, module in task.named_children() if name == "proj"]
    return [part for segmentor in segmentors for part in (segmentor.encoder, segmentor.decoder)] + rest


def _batches(job: TaskJob) -> Callable[[int], Batch]:
    settings = job.settings
    samples = SampleStore(len(job.pairs), lambda index: read_pair(job.pairs[index], job.encoding))
    device = torch.device(job.device)

    def batch(update: int) -> Batch:
        draws = generator("crops", job.title, job.seed, update)
        crops = [
            labelled_crop(*samples[index], settings.image_size, settings.resize_range, settings.cat_max_ratio, draws)
            for index in batch_indices(update, settings.batch_size, len(samples), job.title, job.seed)
        ]
        images = jitter_colors(torch.stack([image for image, _ in crops]), settings.color_jitter, draws)
        return images.to(device), torch.stack([target for _, target in crops]).to(device)

    return batch
