"""Stage one, from image files to a distilled student. Labels have no way in: a job names images only."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import safetensors.torch
import timm
import torch
from timm.layers.norm_act import convert_sync_batchnorm
from torch import Tensor

from gkd_core.distill.alignment import Grid
from gkd_core.distill.objective import DistillBatch, LossWeights, MSEObjective, QSDObjective
from gkd_core.distill.teacher import CachedTeacher, Teacher, fill
from gkd_core.distill.token_cache import FOLDER, TokenCache, digest_of
from gkd_core.distill.views import ViewMaker, Views
from gkd_core.distill.warm_start import QUERY_LOSSES
from gkd_core.errors import SettingsError
from gkd_core.files import atomic_file
from gkd_core.models.build import build_encoder
from gkd_core.models.encoder import Encoder, Tokens
from gkd_core.models.weights import load_into, read_tensors
from gkd_core.seeding import seed_of
from gkd_core.settings import DistillSettings, EncoderSettings
from gkd_core.training.checkpoint import CheckpointStore, State
from gkd_core.training.loop import Rank, Training, train
from gkd_core.training.metrics import MetricsSink
from gkd_core.training.precision import DTYPES
from gkd_core.training.schedule import cosine, decay_groups

Objective = QSDObjective | MSEObjective


@dataclass(frozen=True)
class DistillJob:
    """All that a process needs to take part in one step of stage one; it can be pickled.

    Attributes:
        title: name for progress and messages, such as `distill-source gta5`.
        objective: `qsd` or `mse`.
        updates: optimizer updates.
        images: the unlabelled images.
        start: an objective's weights (student and heads) to go on from, or None to start from the student's own.
        run_folder: where the teacher's tokens of fixed views are kept.
        cache_bytes: room for them; 0 keeps none.
        loaders: processes that make batches ahead, for each worker.
    """

    title: str
    objective: str
    settings: DistillSettings
    updates: int
    teacher: EncoderSettings
    student: EncoderSettings
    images: tuple[Path, ...]
    start: Path | None
    seed: int
    threads: int
    device: str
    run_folder: Path
    cache_bytes: int = 0
    loaders: int = 0


def distill(job: DistillJob, rank: Rank, store: CheckpointStore, sink: MetricsSink, advance: Callable[[int], None]) -> None:
    """Run one step of stage one to its end; the end state is in the store afterwards."""
    torch.set_num_threads(job.threads)
    device = torch.device(job.device)
    check_batch_divides(job.settings, rank.count)
    encoder = frozen_teacher(job.teacher, job.seed).to(device)
    objective = _student_side(job, encoder.dim, rank).to(device)
    if job.settings.compile:
        for each in (encoder, objective.student):
            each.tokens = torch.compile(each.tokens)  # type: ignore[method-assign]
    grid = objective.student.grid(*job.settings.image_size)
    views = ViewMaker(job.title, job.seed, job.settings, job.images, grid[0] * grid[1], rank, job.loaders)
    teacher = Teacher(encoder, grid, job.settings.precision, device)
    train(_training(job, objective, views, _answers(job, teacher, views, grid, rank), rank), store, sink, advance)


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


def step_encoder(encoder: EncoderSettings, step: DistillSettings) -> EncoderSettings:
    """An encoder as a step of stage one sees it: with the step's patch, and its position table laid out for the step's crop."""
    if step.patch_size is None:
        return encoder
    height, width = step.image_size
    side = height if height == width else encoder.image_size
    return encoder.model_copy(update={"patch_size": step.patch_size, "image_size": side})


def check_batch_divides(settings: DistillSettings, workers: int) -> None:
    """Raise `SettingsError` where the batch cannot be shared out evenly."""
    if settings.batch_size % workers:
        raise SettingsError(f"batch_size: {settings.batch_size} images do not divide among {workers} workers; choose a multiple")
    if settings.batch_size // workers % settings.accumulate:
        raise SettingsError(
            f"accumulate: {settings.batch_size // workers} images a worker do not cut into {settings.accumulate} equal parts"
        )


def write_objective(state: State, path: Path) -> None:
    """Write the student and its heads from a finished training's state."""
    with atomic_file(path) as temporary:
        safetensors.torch.save_file({name: tensor.contiguous() for name, tensor in state["model"].items()}, temporary)


def write_student(state: State, path: Path) -> None:
    """Write the student alone, under its encoder's own names."""
    _write_student(state["model"], path)


def write_average(state: State, path: Path) -> None:
    """Write the moving average of the student, where the training kept one."""
    if "ema" in state:
        _write_student(state["ema"], path)


def _write_student(model: Mapping[str, Tensor], path: Path) -> None:
    prefix = "student."
    tensors = {name.removeprefix(prefix): tensor.contiguous() for name, tensor in model.items() if name.startswith(prefix)}
    with atomic_file(path) as temporary:
        safetensors.torch.save_file(tensors, temporary)


def _student_side(job: DistillJob, teacher_dim: int, rank: Rank) -> Objective:
    """The objective, ready to train."""
    objective = build_objective(job, teacher_dim).train()
    if job.settings.activation_checkpointing:
        objective.student.enable_checkpointing()
    if rank.count > 1 and job.device.startswith("cuda"):
        # Elsewhere torch has no such layer: each rank then normalises by its own share of the batch.
        objective = convert_sync_batchnorm(objective)
    return objective


def _training(
    job: DistillJob, objective: Objective, views: ViewMaker, answers: Callable[[Tensor, Tensor], Tokens], rank: Rank
) -> Training:
    settings, device = job.settings, torch.device(job.device)
    scale = settings.batch_size / settings.lr_batch if settings.lr_batch else 1.0
    rate = cosine(settings.lr * scale, settings.min_lr, job.updates, settings.warmup_updates, settings.warmup_lr)
    groups = decay_groups([objective], settings.weight_decay)

    def prepare(made: Views) -> DistillBatch:
        images = made.images.to(device, non_blocking=True)
        masks = made.masks.to(device, non_blocking=True)
        return DistillBatch(images, masks, answers(images, made.slots), warm_up=made.update < settings.warm_start.updates)

    return Training(
        model=objective,
        optimizer=torch.optim.AdamW(groups, lr=settings.lr * scale, fused=True),
        schedules=[rate] * len(groups),
        batch=views,
        prepare=prepare,
        updates=job.updates,
        images_per_update=settings.batch_size,
        observe=objective.observe,
        clip_norm=settings.clip_norm,
        log_every=settings.log_every,
        checkpoint_every=settings.checkpoint_every,
        rank=rank,
        seed=seed_of(job.title, job.seed),
        precision=settings.precision,
        accumulate=settings.accumulate,
        ema_decay=settings.ema_decay,
        loaders=job.loaders,
        files_of=views.files,
    )


def _answers(job: DistillJob, teacher: Teacher, views: ViewMaker, grid: Grid, rank: Rank) -> Callable[[Tensor, Tensor], Tokens]:
    """How the teacher's tokens are come by: from a cache where views are fixed and there is room for one."""
    settings, fixed_views = job.settings, job.settings.fixed_views
    if fixed_views is None or job.cache_bytes == 0:
        return lambda images, slots: teacher.tokens(images)

    def open_cache() -> TokenCache:
        keys = {"image_size", "fixed_views", "augment", "crop_scale", "color_jitter", "precision"}
        facts = {
            "views": settings.model_dump(mode="json", include=keys) | {"title": job.title, "seed": job.seed, "grid": grid},
            "versions": [torch.__version__, timm.__version__],
            "device": teacher.device.type,
        }
        shape = (grid[0] * grid[1] + 1, teacher.encoder.dim)
        cache = TokenCache(
            job.run_folder / FOLDER,
            digest_of(teacher.encoder, job.images, facts),
            len(job.images) * fixed_views,
            shape,
            DTYPES.get(settings.precision, torch.float32),
            job.cache_bytes,
        )
        fill(cache, teacher, views, job.title, rank, job.loaders)
        return cache

    return CachedTeacher(teacher, open_cache).tokens
