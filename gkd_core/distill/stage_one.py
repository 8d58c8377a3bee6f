"""Stage one, from image files to a distilled student. Labels have no way in: a job names images only."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import safetensors.torch
import torch

from gkd_core.data.reading import read_image
from gkd_core.data.sampling import batch_indices
from gkd_core.data.store import SampleStore
from gkd_core.data.transforms import jitter_colors, random_resized_crop
from gkd_core.distill.masking import draw_masks
from gkd_core.distill.objective import DistillBatch, LossWeights, MSEObjective, QSDObjective
from gkd_core.distill.warm_start import QUERY_LOSSES
from gkd_core.errors import SettingsError
from gkd_core.files import atomic_file
from gkd_core.models.build import build_encoder
from gkd_core.models.encoder import Encoder
from gkd_core.models.weights import load_into, read_tensors
from gkd_core.seeding import generator, seed_of
from gkd_core.settings import DistillSettings, EncoderSettings
from gkd_core.training.checkpoint import CheckpointStore, State
from gkd_core.training.loop import Rank, Training, train
from gkd_core.training.metrics import MetricsSink
from gkd_core.training.schedule import cosine, decay_groups

Objective = QSDObjective | MSEObjective


@dataclass(frozen=True)
class DistillJob:
    """All that a process needs to take part in one step of stage one; it can be pickled.

    Attributes:
        title: name for progress and messages, such as `distill-source gta5`.
        objective: `qsd` or `mse`.
        images: the unlabelled images.
        start: an objective's weights (student and heads) to go on from, or None to start from the student's own.
    """

    title: str
    objective: str
    settings: DistillSettings
    teacher: EncoderSettings
    student: EncoderSettings
    images: tuple[Path, ...]
    start: Path | None
    seed: int
    threads: int
    device: str


def distill(job: DistillJob, rank: Rank, store: CheckpointStore, sink: MetricsSink, advance: Callable[[int], None]) -> None:
    """Run one step of stage one to its end; the end state is in the store afterwards."""
    torch.set_num_threads(job.threads)
    device = torch.device(job.device)
    teacher = frozen_teacher(job.teacher, job.seed).to(device)
    objective = build_objective(job, teacher.dim).to(device)
    train(_training(job, objective, teacher, rank, device), store, sink, advance)


def build_objective(job: DistillJob, teacher_dim: int) -> Objective:
    """The student with its heads, with the weights that the job starts from."""
    student = build_encoder(job.student, seed_of("student", job.seed))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_of("heads", job.seed))
        if job.objective == "qsd":
            weights = LossWeights(job.settings.cls_weight, job.settings.feat_weight, job.settings.mask_weight)
            query_loss = QUERY_LOSSES[job.settings.warm_start.queries]
            objective: Objective = QSDObjective(student, teacher_dim, job.settings.num_heads, weights, query_loss)
        else:
            objective = MSEObjective(student, teacher_dim)
    if job.start is not None:
        load_into(objective, read_tensors(job.start), str(job.start))
    return objective


def frozen_teacher(settings: EncoderSettings, seed: int) -> Encoder:
    """The teacher in evaluation mode, always: it must neither learn nor drift in its batch statistics."""
    return build_encoder(settings, seed_of("teacher", seed)).eval().requires_grad_(False)


def check_batch_divides(settings: DistillSettings, workers: int) -> None:
    """Raise `SettingsError` where the batch cannot be shared out evenly."""
    if settings.batch_size % workers:
        raise SettingsError(f"batch_size: {settings.batch_size} images do not divide among {workers} workers; choose a multiple")


def write_objective(state: State, path: Path) -> None:
    """Write the student and its heads from a finished training's state."""
    with atomic_file(path) as temporary:
        safetensors.torch.save_file({name: tensor.contiguous() for name, tensor in state["model"].items()}, temporary)


def write_student(state: State, path: Path) -> None:
    """Write the student alone, under its encoder's own names."""
    prefix = "student."
    tensors = {
        name.removeprefix(prefix): tensor.contiguous() for name, tensor in state["model"].items() if name.startswith(prefix)
    }
    with atomic_file(path) as temporary:
        safetensors.torch.save_file(tensors, temporary)


def _training(job: DistillJob, objective: Objective, teacher: Encoder, rank: Rank, device: torch.device) -> Training:
    settings = job.settings
    check_batch_divides(settings, rank.count)
    grids = {role: encoder.grid(*settings.image_size) for role, encoder in (("teacher", teacher), ("student", objective.student))}
    if grids["teacher"] != grids["student"]:
        raise SettingsError(
            f"{job.title}: the teacher gives {grids['teacher']} patch tokens and the student {grids['student']}; "
            "set patch_size so that they agree"
        )
    objective.train()
    scale = settings.batch_size / settings.lr_batch if settings.lr_batch else 1.0
    rate = cosine(settings.lr * scale, settings.min_lr, settings.updates, settings.warmup_updates)
    groups = decay_groups([objective], settings.weight_decay)
    return Training(
        model=objective,
        optimizer=torch.optim.AdamW(groups, lr=settings.lr * scale),
        schedules=[rate] * len(groups),
        batch=_batches(job, teacher, rank, device),
        updates=settings.updates,
        images_per_update=settings.batch_size,
        observe=objective.observe,
        clip_norm=settings.clip_norm,
        log_every=settings.log_every,
        checkpoint_every=settings.checkpoint_every,
        rank=rank,
    )


def _batches(job: DistillJob, teacher: Encoder, rank: Rank, device: torch.device) -> Callable[[int], DistillBatch]:
    settings = job.settings
    images = SampleStore(len(job.images), lambda index: read_image(job.images[index]))
    share = settings.batch_size // rank.count
    rows, columns = teacher.grid(*settings.image_size)

    def batch(update: int) -> DistillBatch:
        indices = batch_indices(update, settings.batch_size, len(images), job.title, job.seed)[
            rank.index * share : (rank.index + 1) * share
        ]
        draws = generator("views", job.title, job.seed, update, rank.index)
        views = torch.stack(
            [random_resized_crop(images[index], settings.image_size, settings.crop_scale, draws) for index in indices]
        )
        views = jitter_colors(views, settings.color_jitter, draws).to(device)
        masks = draw_masks(share, rows * columns, settings.mask_probability, settings.mask_ratio, draws).to(device)
        with torch.no_grad():
            tokens = teacher.tokens(views)
        return DistillBatch(views, masks, tokens, warm_up=update < settings.warm_start.updates)

    return batch
