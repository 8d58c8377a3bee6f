"""Stage one, from image files to a distilled student. Labels have no way in: a job names images only."""

from __future__ import annotations

from collections.abc import Callable

import timm
import torch
from timm.layers.norm_act import convert_sync_batchnorm
from torch import Tensor

from gkd_core.data.order.samples import Reading
from gkd_core.distill.job import DistillJob, check_batch_divides
from gkd_core.distill.objective import DistillBatch, LossWeights, MSEObjective, QSDObjective
from gkd_core.distill.teacher import CachedTeacher, Grid, Teacher, fill
from gkd_core.distill.token_cache import FOLDER, TokenCache, digest_of
from gkd_core.distill.views import ViewMaker, Views
from gkd_core.distill.warm_start import QUERY_LOSSES
from gkd_core.models.build import build_encoder
from gkd_core.models.encoder import Encoder, Tokens
from gkd_core.models.tensor_files import read_tensors
from gkd_core.models.weights import load_into
from gkd_core.seeding import seed_of
from gkd_core.settings import EncoderSettings
from gkd_core.system.compiler import check_compiler
from gkd_core.training.checkpoint import CheckpointStore
from gkd_core.training.loop import Training, train
from gkd_core.training.metrics import MetricsSink
from gkd_core.training.optimization import cosine, decay_groups
from gkd_core.training.precision import DTYPES
from gkd_core.training.rank import Rank

Objective = QSDObjective | MSEObjective


def distill(job: DistillJob, rank: Rank, store: CheckpointStore, sink: MetricsSink, advance: Callable[[int], None]) -> None:
    """Run one step of stage one to its end; the end state is in the store afterwards."""
    torch.set_num_threads(job.threads)
    device = torch.device(job.device)
    check_batch_divides(job.settings, rank.count)
    if job.settings.compile:
        check_compiler(job.device)
    encoder = frozen_teacher(job.teacher, job.seed).to(device)
    objective = _student_side(job, encoder.dim, rank).to(device)
    if job.settings.compile:
        for each in (encoder, objective.student):
            each.tokens = torch.compile(each.tokens)  # type: ignore[method-assign]
    grid = objective.student.grid(*job.settings.image_size)
    reading = Reading(job.title, job.seed, job.mix, job.streaming, job.updates, rank.index, rank.count)
    views = ViewMaker(job.settings, job.images, reading, grid[0] * grid[1], job.loaders)
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
        load_into(objective, read_tensors(job.start), str(job.start), resize=job.student.resize)
    return objective


def frozen_teacher(settings: EncoderSettings, seed: int) -> Encoder:
    """The teacher in evaluation mode, always: it must neither learn nor drift in its batch statistics."""
    return build_encoder(settings, seed_of("teacher", seed)).eval().requires_grad_(False)


def _student_side(job: DistillJob, teacher_dim: int, rank: Rank) -> Objective:
    """The objective, ready to train."""
    objective = build_objective(job, teacher_dim).train()
    if job.settings.activation_checkpointing:
        objective.student.enable_checkpointing()
    if rank.count > 1 and job.device.startswith("cuda"):
        # Elsewhere torch has no such layer: each rank then normalises by its own share of the batch.
        objective = convert_sync_batchnorm(objective, rank.group)
    return objective


def _training(
    job: DistillJob, objective: Objective, views: ViewMaker, answers: Callable[[Tensor, Tensor], Tokens], rank: Rank
) -> Training:
    settings, device = job.settings, torch.device(job.device)
    scale = settings.batch_size / settings.lr_batch if settings.lr_batch else 1.0
    rate = cosine(settings.lr * scale, settings.min_lr, job.updates, settings.warmup_updates, settings.warmup_lr)
    groups = decay_groups(objective, settings.weight_decay)

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
    """Where the teacher's tokens come from: a cache where views are fixed and there is room for one."""
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
