"""Stages `distill-proxy` (1a) and `distill-source` (1b): a distilled student and its record."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from gkd_core.data.catalog.sources import Source
from gkd_core.data.files.blobs import DataFile
from gkd_core.data.files.origin import training_files_keep_their_size
from gkd_core.distill.job import DistillJob, step_encoder
from gkd_core.distill.results import write_average, write_objective, write_student
from gkd_core.distill.token_cache import discard
from gkd_core.errors import GkdError
from gkd_core.files import atomic_folder
from gkd_core.methods import method_of
from gkd_core.records import MANIFEST, EncoderCheckpoint, sha256_of
from gkd_core.settings import DistillSettings, Settings
from gkd_core.stages.domains import sources
from gkd_core.stages.machine import absolute_weights, device_of, held
from gkd_core.stages.run import Context
from gkd_core.training.checkpoint import FolderStore, State
from gkd_core.training.metrics import file_sink
from gkd_core.training.progress import progress
from gkd_core.training.rank import Rank

STUDENT = "encoder.safetensors"
AVERAGE = "encoder_ema.safetensors"  # the student's moving average; what goes on to stage two are the raw weights
OBJECTIVE = "objective.safetensors"  # student and heads, for a later step of stage one to go on from


def distill_proxy(context: Context) -> None:
    """Stage 1a: distil the student on the proxy images."""
    settings = context.settings
    _distill(context, settings.distill_proxy, Source.model_validate(settings.data.proxy), start=None)


def distill_source(context: Context) -> None:
    """Stage 1b: go on, student and heads, on the source's images; without a stage 1a, from the student's own weights."""
    settings = context.settings
    source = sources(settings, context.catalog)[str(context.run.source)]
    start = context.workspace / context.run.input("start") if context.run.has_input("start") else None
    _distill(context, settings.distill_source, source, start)


def _start(folder: Path) -> Path:
    """Student and heads that stage 1a left, as its record describes them."""
    record = EncoderCheckpoint.read(folder / MANIFEST)
    # Records of versions before this one state no digest of it.
    return folder / OBJECTIVE if record.objective_sha256 is None else held(
        folder / OBJECTIVE, record.objective_sha256, folder / MANIFEST
    )


def _distill(context: Context, section: DistillSettings, source: Source, start: Path | None) -> None:
    settings = context.settings
    if settings.compute.elsewhere:
        from gkd_core.cluster.job_package import RemoteWork
        from gkd_core.cluster.remote_client import run_remotely

        run, workspace = context.run, context.workspace
        work = RemoteWork(settings, run.stage, run.source, run.inputs, workspace, context.output, context.run_folder)
        run_remotely(work)
        return
    parts = [_images(context, reference) for reference in source.references]
    images = tuple(image for part in parts for image in part)
    job = DistillJob(
        title=context.run.name,
        objective=str(method_of(settings).distillation),
        settings=section,
        updates=section.updates_for(len(images)),
        teacher=step_encoder(absolute_weights(settings.teacher, context), section),
        student=step_encoder(absolute_weights(settings.student, context), section),
        images=images,
        start=None if start is None else _start(start),
        seed=settings.seed,
        threads=settings.compute.threads,
        device=device_of(settings),
        run_folder=context.run_folder,
        cache_bytes=settings.compute.teacher_cache_bytes,
        loaders=settings.compute.loaders,
        mix=source.mix([len(part) for part in parts]),
        streaming=settings.data.streaming,
    )
    state = _train(job, settings, context.run_folder)
    with atomic_folder(context.output) as folder:
        write_objective(state, folder / OBJECTIVE)
        write_student(state, folder / STUDENT)
        write_average(state, folder / AVERAGE)
        EncoderCheckpoint(
            encoder=step_encoder(settings.student, section),
            weights=STUDENT,
            sha256=sha256_of(folder / STUDENT),
            objective_sha256=sha256_of(folder / OBJECTIVE),
            stage=context.run.name,
            method=settings.method,
            seed=settings.seed,
            updates=job.updates,
        ).write(folder / MANIFEST)
    discard(context.run_folder)


def _images(context: Context, reference: str) -> Sequence[DataFile]:
    entry, split = context.catalog.domain(reference)
    training_files_keep_their_size(context.origin, entry, split)
    return context.origin.images(entry, split)


def _train(job: DistillJob, settings: Settings, folder: Path) -> State:
    """Run a job in this process, or on Ray workers, and give its end state."""
    if settings.compute.workers > 0:
        from gkd_core.cluster.train import Group, distill_on_ray

        compute = settings.compute
        return distill_on_ray(job, Group(compute.workers, compute.most_workers, compute.max_failures), folder)
    # Only where the work is done here: Ray's workers load it for themselves.
    from gkd_core.distill.stage_one import distill

    store = FolderStore(folder)
    with progress(job.title, job.updates) as advance:
        distill(job, Rank(), store, file_sink(folder), advance)
    state = store.load()
    if state is None:
        raise GkdError(f"{store.path}: training ended but its checkpoint is gone; was the folder removed meanwhile?")
    return state
