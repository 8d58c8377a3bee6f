"""Stages `distill-proxy` (1a) and `distill-source` (1b): a distilled student and its record."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from gkd_core.data.catalog.sources import Source
from gkd_core.data.files.blobs import DataFile
from gkd_core.data.files.folders import field_images
from gkd_core.data.files.origin import training_files_keep_their_size
from gkd_core.distill.job import DistillJob, step_encoder
from gkd_core.distill.results import write_average, write_objective, write_student
from gkd_core.distill.token_cache import discard
from gkd_core.errors import GkdError
from gkd_core.files import atomic_folder
from gkd_core.methods import method_of
from gkd_core.records import MANIFEST, EncoderCheckpoint, FieldImages, described_field, sha256_of
from gkd_core.settings import DistillSettings, EncoderSettings, Settings
from gkd_core.stages.machine import absolute_weights, device_of, held
from gkd_core.stages.student_record import check_student
from gkd_core.stages.work import Context
from gkd_core.training.checkpoint import FolderStore, State
from gkd_core.training.metrics import file_sink
from gkd_core.training.progress import progress
from gkd_core.training.rank import Rank

STUDENT = "encoder.safetensors"
AVERAGE = "encoder_ema.safetensors"  # the student's moving average; what goes on to stage two are the raw weights
OBJECTIVE = "objective.safetensors"  # student and heads, for a later step of stage one to go on from


def distill_proxy(context: Context) -> None:
    """Stage 1a: distil the student on the proxy images, and on those of the field that join them."""
    settings = context.settings
    source = Source.model_validate(settings.data.proxy)
    _distill(context, settings.distill_proxy, source, partial(_own_weights, context), partial(_joining, context))


def distill_source(context: Context) -> None:
    """Stage 1b: go on on the source's images, with 1a's student and fresh heads or its own; without a 1a, from the student's
    own weights."""
    section, source = context.settings.distill_source, context.recipe.sources[str(context.run.source)]
    begin = BEGINNINGS[section.heads] if context.run.has_input("start") else _own_weights
    _distill(context, section, source, partial(begin, context))


class Beginning(NamedTuple):
    """What a step of stage one starts from: a student with its weights and, where its heads go on too, the weights of both.

    `field` are the images of the field that the student has seen.
    """

    student: EncoderSettings
    objective: Path | None = None
    field: FieldImages | None = None


def _own_weights(context: Context) -> Beginning:
    return Beginning(absolute_weights(context.settings.student, context))


def _left_by_1a(context: Context) -> tuple[Path, EncoderCheckpoint]:
    """The folder that stage 1a left, and its record, which must be of these settings."""
    folder = context.workspace / context.run.input("start")
    record = EncoderCheckpoint.read(folder / MANIFEST)
    check_student(record, context.settings, context.settings.distill_proxy, folder / MANIFEST)
    return folder, record


def _student_alone(context: Context) -> Beginning:
    """The student that stage 1a left, as its record describes it."""
    folder, record = _left_by_1a(context)
    weights = held(folder / record.weights, record.sha256, folder / MANIFEST)
    student = context.settings.student.model_copy(update={"weights": str(weights), "min_coverage": 1.0})
    return Beginning(student, field=record.field)


def _student_and_heads(context: Context) -> Beginning:
    """Student and heads that stage 1a left, as its record describes them."""
    folder, record = _left_by_1a(context)
    objective = folder / OBJECTIVE
    if record.objective_sha256 is not None:  # records of early versions state no digest of it
        held(objective, record.objective_sha256, folder / MANIFEST)
    return Beginning(absolute_weights(context.settings.student, context), objective, record.field)


BEGINNINGS: Mapping[str, Callable[[Context], Beginning]] = {"fresh": _student_alone, "carried": _student_and_heads}


def _joining(context: Context) -> list[Path]:
    """The images of the field that join the proxy."""
    folder = context.settings.data.field
    return [] if folder is None else field_images(context.workspace / folder)


def _distill(
    context: Context,
    section: DistillSettings,
    source: Source,
    begin: Callable[[], Beginning],
    joining: Callable[[], list[Path]] = list,
) -> None:
    settings = context.settings
    if settings.compute.elsewhere:
        from gkd_core.cluster.job_package import RemoteWork
        from gkd_core.cluster.remote_client import run_remotely

        run, workspace = context.run, context.workspace
        work = RemoteWork(settings, run.stage, run.source, run.inputs, workspace, context.output, context.run_folder)
        run_remotely(work)
        return
    parts = [_images(context, reference) for reference in source.references]
    joined, mix = joining(), source.mix([len(part) for part in parts])
    images = (*(image for part in parts for image in part), *joined)
    beginning = begin()
    job = DistillJob(
        title=context.run.name,
        objective=str(method_of(settings).distillation),
        settings=section,
        updates=section.updates_for(len(images)),
        teacher=step_encoder(absolute_weights(settings.teacher, context), section),
        student=step_encoder(beginning.student, section),
        images=images,
        start=beginning.objective,
        seed=settings.seed,
        threads=settings.compute.threads,
        device=device_of(settings),
        run_folder=context.run_folder,
        cache_bytes=settings.compute.teacher_cache_bytes,
        loaders=settings.compute.loaders,
        mix=mix.joined_by(len(joined)) if joined else mix,
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
            field=described_field(joined, context.workspace / str(settings.data.field)) if joined else beginning.field,
            stage=context.run.name,
            method=settings.method,
            seed=settings.seed,
            updates=job.updates,
        ).write(folder / MANIFEST)
    discard(context.run_folder)


def _images(context: Context, reference: str) -> Sequence[DataFile]:
    domain = context.domain(reference)
    training_files_keep_their_size(context.origin, domain)
    return context.origin.images(domain)


def _train(job: DistillJob, settings: Settings, folder: Path) -> State:
    """Run a job in this process, or on Ray workers, and give its end state."""
    if settings.compute.workers > 0:
        from gkd_core.cluster.train import Group, distill_on_ray

        compute = settings.compute
        return distill_on_ray(
            job, Group(compute.workers, compute.most_workers, compute.max_failures, compute.start_minutes), folder
        )
    # Only where the work is done here: Ray's workers load it for themselves.
    from gkd_core.distill.stage_one import distill

    store = FolderStore(folder)
    with progress(job.title, job.updates) as advance:
        distill(job, Rank(), store, file_sink(folder), advance)
    state = store.load()
    if state is None:
        raise GkdError(f"{store.path}: training ended but its checkpoint is gone; was the folder removed meanwhile?")
    return state
