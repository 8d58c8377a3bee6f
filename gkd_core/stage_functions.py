"""What each stage does, in terms of the library: from its inputs' records to its output folder and record."""

from __future__ import annotations

import json
from pathlib import Path

import safetensors.torch
import torch

from gkd_core.data.reading import list_images, list_pairs, resolve_encoding
from gkd_core.distill.stage_one import DistillJob, distill, frozen_teacher, write_objective, write_student
from gkd_core.errors import GkdError
from gkd_core.evaluate.confusion import class_iou, mean_iou
from gkd_core.evaluate.matrix import Domain, measure
from gkd_core.files import atomic_folder
from gkd_core.methods import METHODS, method_of, task_updates
from gkd_core.models.build import build_encoder
from gkd_core.models.segmentor import build_segmentor, load_segmentor
from gkd_core.records import (
    MANIFEST,
    DataManifest,
    DatasetVersion,
    EncoderCheckpoint,
    Score,
    ScoreProtocol,
    ScoreTable,
    SegmentorCheckpoint,
    sha256_of,
)
from gkd_core.seeding import seed_of
from gkd_core.settings import DistillSettings, EncoderSettings, Settings
from gkd_core.stages import Context, all_domains, benchmarks, domains_of, sources
from gkd_core.task.stage_two import EndToEndTask, FrozenTask, SingleStageTask, TaskJob, learn_task as train_task
from gkd_core.training.checkpoint import FolderStore, State
from gkd_core.training.loop import Rank
from gkd_core.training.metrics import file_sink
from gkd_core.training.progress import progress

STUDENT = "encoder.safetensors"
OBJECTIVE = "objective.safetensors"  # student and heads, for a later step of stage one to go on from
SEGMENTOR = "segmentor.safetensors"
SCORES = "scores.json"
SELECTION = "last checkpoint"


def prepare_data(context: Context) -> None:
    """Render the world, where it is used, and list every dataset split of the run; each must be whole."""
    data = context.settings.data
    with atomic_folder(context.output) as folder:
        if data.world is not None:
            from gkd_core.data.world.writer import write_world

            write_world(data.world, folder)
        root = folder if data.world is not None else context.data_root
        versions = tuple(_version(context, reference, root) for reference in all_domains(context.settings, context.catalog))
        DataManifest(versions=versions).write(folder / MANIFEST)


def distill_proxy(context: Context) -> None:
    """Stage 1a: distil the student on the proxy images."""
    settings = context.settings
    _distill(context, settings.distill_proxy, settings.data.proxy, start=None)


def distill_source(context: Context) -> None:
    """Stage 1b: go on, student and heads, on the source's images."""
    settings = context.settings
    reference = sources(settings, context.catalog)[str(context.run.source)]
    _distill(context, settings.distill_source, reference, start=context.workspace / context.run.inputs[0] / OBJECTIVE)


def learn_task(context: Context) -> None:
    """Stage two: a decoder on the method's encoder, with the source's labels."""
    settings, catalog = context.settings, context.catalog
    method = method_of(settings)
    entry, split = catalog.domain(sources(settings, catalog)[str(context.run.source)])
    taxonomy = catalog.taxonomy_of(entry)
    job = TaskJob(
        title=context.run.name,
        settings=settings.learn_task,
        pairs=list_pairs(entry, context.data_root, split),
        encoding=resolve_encoding(catalog, entry, context.data_root),
        updates=task_updates(settings),
        seed=settings.seed,
        device=_device(settings),
    )
    torch.set_num_threads(settings.compute.threads)
    encoder = build_encoder(_task_encoder(context), seed_of(method.encoder, settings.seed))
    segmentor = build_segmentor(encoder, settings.learn_task.decoder, len(taxonomy.classes), settings.learn_task.decoder_width, settings.seed)
    segmentor.to(job.device)
    if method.freeze_encoder:
        task: torch.nn.Module = FrozenTask(segmentor)
    elif method.joint_distillation:
        teacher = frozen_teacher(settings.teacher, settings.seed).to(job.device)
        task = SingleStageTask(segmentor, teacher, settings.learn_task.distill_weight, settings.seed).to(job.device)
    else:
        task = EndToEndTask(segmentor)
    with progress(context.run.name, job.updates) as advance:
        train_task(job, task, FolderStore(context.run_folder), file_sink(context.run_folder), advance)
    with atomic_folder(context.output) as folder:
        weights = folder / SEGMENTOR
        safetensors.torch.save_file({name: tensor.contiguous() for name, tensor in segmentor.state_dict().items()}, weights)
        SegmentorCheckpoint(
            encoder=settings.teacher if method.encoder == "teacher" else settings.student,
            decoder=settings.learn_task.decoder,
            decoder_width=settings.learn_task.decoder_width,
            taxonomy=taxonomy.name,
            classes=taxonomy.classes,
            source=str(context.run.source),
            weights=SEGMENTOR,
            sha256=sha256_of(weights),
            method=settings.method,
            seed=settings.seed,
            updates=job.updates,
            encoder_frozen=method.freeze_encoder,
        ).write(folder / MANIFEST)


def evaluate(context: Context) -> None:
    """Measure a source's segmentor on its own validation split and on every target of its benchmarks."""
    settings, catalog = context.settings, context.catalog
    torch.set_num_threads(settings.compute.threads)
    source = str(context.run.source)
    folder = context.workspace / context.run.inputs[0]
    record = SegmentorCheckpoint.read(folder / MANIFEST)
    device = torch.device(_device(settings))
    model = load_segmentor(folder).to(device)
    matrices = {}
    for reference in domains_of(settings, catalog, source):
        domain = _domain(context, reference, len(record.classes))
        with progress(f"evaluate {source} on {reference}", len(domain.pairs)) as advance:
            matrices[reference] = measure(model, domain, settings.evaluate, device, advance)
    scores = []
    for benchmark in benchmarks(settings, catalog):
        if benchmark.source.partition("/")[0] != source:
            continue
        measured = {"in-domain": benchmark.validation, **benchmark.targets}
        scores += [_score(context, benchmark.name, domain, reference, matrices[reference], record) for domain, reference in measured.items()]
    with atomic_folder(context.output) as folder:
        ScoreTable(scores=tuple(scores)).write(folder / SCORES)
        (folder / "confusion.json").write_text(json.dumps({name: matrix.tolist() for name, matrix in matrices.items()}) + "\n")


def report(context: Context) -> None:
    """Join the scores of all sources into the matrix."""
    from gkd_core.evaluate.report import write_report

    tables = [ScoreTable.read(context.workspace / path / SCORES) for path in context.run.inputs]
    order = [benchmark.name for benchmark in benchmarks(context.settings, context.catalog)]
    scores = sorted((score for table in tables for score in table.scores), key=lambda score: order.index(score.benchmark))
    with atomic_folder(context.output) as folder:
        write_report(ScoreTable(scores=tuple(scores)), folder)


def _version(context: Context, reference: str, root: Path) -> DatasetVersion:
    entry, split = context.catalog.domain(reference)
    images = len(list_images(entry, root, split))
    labels = None if entry.labels is None else len(list_pairs(entry, root, split))
    return DatasetVersion(dataset=entry.name, split=split, folder=entry.folder, images=images, labels=labels)


def _distill(context: Context, section: DistillSettings, reference: str, start: Path | None) -> None:
    settings = context.settings
    entry, split = context.catalog.domain(reference)
    job = DistillJob(
        title=context.run.name,
        objective=str(method_of(settings).distillation),
        settings=section,
        teacher=_absolute(settings.teacher, context.workspace),
        student=_absolute(settings.student, context.workspace),
        images=tuple(list_images(entry, context.data_root, split)),
        start=start,
        seed=settings.seed,
        threads=settings.compute.threads,
        device=_device(settings),
    )
    state = _train(job, settings, context.run_folder)
    with atomic_folder(context.output) as folder:
        write_objective(state, folder / OBJECTIVE)
        write_student(state, folder / STUDENT)
        EncoderCheckpoint(
            encoder=settings.student,
            weights=STUDENT,
            sha256=sha256_of(folder / STUDENT),
            stage=context.run.name,
            method=settings.method,
            seed=settings.seed,
            updates=section.updates,
        ).write(folder / MANIFEST)


def _train(job: DistillJob, settings: Settings, folder: Path) -> State:
    """Run a job in this process, or on Ray workers, and give its end state."""
    if settings.compute.workers > 0:
        from gkd_core.adapters.ray_train import distill_on_ray

        return distill_on_ray(job, settings.compute.workers, settings.compute.max_failures, folder)
    store = FolderStore(folder)
    with progress(job.title, job.settings.updates) as advance:
        distill(job, Rank(), store, file_sink(folder), advance)
    state = store.load()
    if state is None:
        raise GkdError(f"{store.path}: training ended but its checkpoint is gone; was the folder removed meanwhile?")
    return state


def _task_encoder(context: Context) -> EncoderSettings:
    """Settings of the encoder that stage two starts from, pointing at stage one's student where the method has one."""
    settings = context.settings
    method = METHODS[settings.method]
    if method.encoder == "teacher":
        return _absolute(settings.teacher, context.workspace)
    if method.distillation is None:
        return _absolute(settings.student, context.workspace)
    folder = context.workspace / context.run.inputs[0]
    record = EncoderCheckpoint.read(folder / MANIFEST)
    return record.encoder.model_copy(update={"weights": str(folder / record.weights), "min_coverage": 1.0})


def _domain(context: Context, reference: str, classes: int) -> Domain:
    entry, split = context.catalog.domain(reference)
    encoding = resolve_encoding(context.catalog, entry, context.data_root)
    return Domain(list_pairs(entry, context.data_root, split), encoding, entry.protocol, classes)


def _score(context: Context, benchmark: str, domain: str, reference: str, matrix: torch.Tensor, record: SegmentorCheckpoint) -> Score:
    settings = context.settings
    entry, split = context.catalog.domain(reference)
    ious = class_iou(matrix)
    return Score(
        method=settings.method,
        teacher=settings.teacher.arch,
        student=record.encoder.arch,
        seed=settings.seed,
        benchmark=benchmark,
        source=record.source,
        domain=domain,
        dataset=reference,
        in_domain=domain == "in-domain",
        miou=mean_iou(ious),
        class_iou=dict(zip(record.classes, ious, strict=True)),
        images=len(list_images(entry, context.data_root, split)),
        protocol=ScoreProtocol(
            size=entry.protocol.max_size,
            window=settings.evaluate.window,
            stride=settings.evaluate.stride,
            classes=len(record.classes),
            selection=SELECTION,
        ),
    )


def _absolute(encoder: EncoderSettings, workspace: Path) -> EncoderSettings:
    """A weights path as seen from anywhere: Ray's workers have a working directory of their own."""
    if not encoder.weights.endswith((".safetensors", ".pth")):
        return encoder
    return encoder.model_copy(update={"weights": str(workspace / encoder.weights)})


def _device(settings: Settings) -> str:
    if settings.compute.device != "auto":
        return settings.compute.device
    return "cuda" if torch.cuda.is_available() else "cpu"
