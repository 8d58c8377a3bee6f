"""Stage `learn-task` (2): a decoder on the method's encoder, and the record of both."""

from __future__ import annotations

from pathlib import Path

import torch

from gkd_core.data.catalog.load import Domain
from gkd_core.data.files.origin import training_files_keep_their_size
from gkd_core.data.files.reading import LabelledImages
from gkd_core.data.order.sampling import draw_fraction
from gkd_core.distill.stage_one import frozen_teacher
from gkd_core.files import atomic_folder
from gkd_core.methods import METHODS, encoder_is_frozen, method_of, task_updates
from gkd_core.models.build import build_encoder
from gkd_core.models.segmentor import build_segmentor
from gkd_core.models.tensor_files import write_tensors
from gkd_core.records import MANIFEST, EncoderCheckpoint, SegmentorCheckpoint, sha256_of
from gkd_core.seeding import seed_of
from gkd_core.settings import EncoderSettings
from gkd_core.stages.machine import absolute_weights, device_of, distilled_encoder
from gkd_core.stages.student_record import check_student
from gkd_core.stages.work import Context
from gkd_core.task.stage_two import EndToEndTask, FrozenTask, SingleStageTask, TaskJob
from gkd_core.task.stage_two import learn_task as train_task
from gkd_core.training.checkpoint import FolderStore
from gkd_core.training.metrics import file_sink
from gkd_core.training.progress import progress

SEGMENTOR = "segmentor.safetensors"
LABELLED = "labelled.txt"  # the images whose labels were learnt from, one a line


def learn_task(context: Context) -> None:
    """Stage two: a decoder on the method's encoder, with the source's labels."""
    settings = context.settings
    method = method_of(settings)
    source, domains = context.recipe.sources[str(context.run.source)], context.recipe.parts(str(context.run.source))
    taxonomy = domains[0].taxonomy
    parts = [_labelled(context, domain) for domain in domains]
    job = TaskJob(
        title=context.run.name,
        settings=settings.learn_task,
        parts=parts,
        mix=source.mix([len(part.pairs) for part in parts]),
        updates=task_updates(settings),
        seed=settings.seed,
        device=device_of(settings),
        loaders=settings.compute.loaders,
        streaming=settings.data.streaming,
    )
    torch.set_num_threads(settings.compute.threads)
    start = _task_encoder(context)
    encoder = build_encoder(start, seed_of(method.encoder, settings.seed))
    section = settings.learn_task
    segmentor = build_segmentor(
        encoder,
        section.decoder,
        len(taxonomy.classes),
        section.decoder_width,
        settings.seed,
        section.mask2former,
        section.feature_norm,
    )
    segmentor.to(job.device)
    frozen = encoder_is_frozen(settings)
    if frozen:
        task: torch.nn.Module = FrozenTask(segmentor)
    elif method.joint_distillation:
        teacher = frozen_teacher(absolute_weights(settings.teacher, context), settings.seed).to(job.device)
        task = SingleStageTask(segmentor, teacher, section.distill_weight, settings.seed).to(job.device)
    else:
        task = EndToEndTask(segmentor)
    with progress(context.run.name, job.updates) as advance:
        train_task(job, task, FolderStore(context.run_folder), file_sink(context.run_folder), advance)
    with atomic_folder(context.output) as folder:
        weights = folder / SEGMENTOR
        write_tensors(segmentor.state_dict(), weights)
        learnt = [
            context.origin.name(domain, pair.image) for domain, part in zip(domains, parts, strict=True) for pair in part.pairs
        ]
        (folder / LABELLED).write_text("".join(f"{name}\n" for name in learnt), encoding="utf-8")
        declared = settings.teacher if method.encoder == "teacher" else settings.student
        SegmentorCheckpoint(
            # On the grid that stage one left it with; the weights as declared, as a path of this machine means nothing elsewhere.
            encoder=declared.model_copy(update={"patch_size": start.patch_size, "image_size": start.image_size}),
            decoder=section.decoder,
            decoder_width=section.decoder_width,
            mask2former=section.mask2former,
            feature_norm=section.feature_norm,
            taxonomy=taxonomy.name,
            classes=taxonomy.classes,
            source=str(context.run.source),
            weights=SEGMENTOR,
            sha256=sha256_of(weights),
            method=settings.method,
            seed=settings.seed,
            updates=job.updates,
            encoder_frozen=frozen,
            # Only where the result depends on it: DVC knows this output by the settings that the stage declares.
            teacher=settings.teacher.arch if "teacher" in context.run.params or method.distillation else None,
            label_fraction=section.label_fraction,
            field=EncoderCheckpoint.read(_distilled(context) / MANIFEST).field if method.distillation else None,
        ).write(folder / MANIFEST)


def _labelled(context: Context, domain: Domain) -> LabelledImages:
    """The images of one part of the source whose labels are learnt from."""
    settings, origin = context.settings, context.origin
    training_files_keep_their_size(origin, domain)
    pairs = draw_fraction(origin.pairs(domain), settings.learn_task.label_fraction, domain.reference, settings.seed)
    return LabelledImages(pairs, origin.encoding(domain))


def _distilled(context: Context) -> Path:
    """The folder that stage one left."""
    return context.workspace / context.run.input("student")


def _task_encoder(context: Context) -> EncoderSettings:
    """Settings of the encoder that stage two starts from, pointing at stage one's student where the method has one."""
    settings = context.settings
    method = METHODS[settings.method]
    if method.encoder == "teacher":
        return absolute_weights(settings.teacher, context)
    if method.distillation is None:
        return absolute_weights(settings.student, context)
    folder = _distilled(context)
    check_student(EncoderCheckpoint.read(folder / MANIFEST), settings, settings.distill_source, folder / MANIFEST)
    return distilled_encoder(folder)
