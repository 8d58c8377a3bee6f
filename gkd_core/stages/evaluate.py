"""Stage `evaluate`: a source's segmentor on every domain of its benchmarks."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch

from gkd_core.data.catalog.load import Domain
from gkd_core.data.files.origin import Origin
from gkd_core.errors import DataError
from gkd_core.evaluate.confusion import class_iou, mean_iou
from gkd_core.evaluate.matrix import ScoredImages, measure
from gkd_core.evaluate.places import Place, check_classes
from gkd_core.files import atomic_folder
from gkd_core.methods import is_teacher
from gkd_core.models.flops import student_size
from gkd_core.models.segmentor import load_segmentor
from gkd_core.notes import clear_file
from gkd_core.paths import SCORES, SIZE
from gkd_core.records import MANIFEST, Score, ScoreProtocol, ScoreTable, SegmentorCheckpoint
from gkd_core.stages.machine import device_of
from gkd_core.stages.work import Context
from gkd_core.training.metrics import MetricsSink, file_sink
from gkd_core.training.progress import Advance, progress

SELECTION = "last checkpoint"
NOTE_SECONDS = 2.0


def evaluate(context: Context) -> None:
    """Measure a source's segmentor on its own validation split and on every target of its benchmarks."""
    settings, recipe = context.settings, context.recipe
    torch.set_num_threads(settings.compute.threads)
    source = str(context.run.source)
    folder = context.workspace / context.run.input("segmentor")
    record = SegmentorCheckpoint.read(folder / MANIFEST)
    domains = context.recipe.measured_domains(source)
    for domain in domains:
        check_classes(record, domain)
    clear_file(context.run_folder / SIZE, "it is written again")
    beside = None if is_teacher(record.method) else settings.teacher
    student_size(record, folder / record.weights, settings.evaluate.window, beside).write(context.run_folder / SIZE)
    matrices = confusions_on(context, folder, domains, len(record.classes))
    # As it was learnt; a record without a teacher is of a method that has none, where the settings' name stands in tables.
    teacher = record.teacher or settings.teacher.arch
    scores = []
    for benchmark in recipe.benchmarks:
        if benchmark.source.name != source:
            continue
        places = [
            Place(benchmark.name, domain, reference, in_domain=domain == "in-domain")
            for domain, reference in {"in-domain": benchmark.validation, **benchmark.targets}.items()
        ]
        scores += [score(context, place, matrices[place.reference], record, teacher) for place in places]
    with atomic_folder(context.output) as folder:
        ScoreTable(scores=tuple(scores)).write(folder / SCORES)
        (folder / "confusion.json").write_text(json.dumps({name: matrix.tolist() for name, matrix in matrices.items()}) + "\n")


def confusions_on(context: Context, folder: Path, domains: Sequence[Domain], classes: int) -> dict[str, torch.Tensor]:
    """Confusion matrix (classes, classes) of a folder's segmentor on each domain, by its `dataset/split`.

    The images done are noted in `metrics.jsonl` of the run folder, where a flow can see them.
    """
    scored = {domain.reference: scored_images(context.origin, domain, classes) for domain in domains}
    matrices: dict[str, torch.Tensor] = {}
    sink = file_sink(context.run_folder)
    with _measuring(context, folder) as measured_on:
        for reference, images in scored.items():
            before = sum(len(scored[name].pairs) for name in matrices)
            with progress(f"{context.run.name} on {reference}", len(images.pairs)) as advance:
                matrices[reference] = measured_on(images, _noting(sink, before, len(matrices), advance))
    return matrices


def _noting(sink: MetricsSink, before: int, domains: int, advance: Advance) -> Advance:
    """Also write down how many images, of all domains, are done: at the first of a domain, then every few seconds."""
    wrote = 0.0

    def note(done: int) -> None:
        nonlocal wrote
        advance(done)
        now = time.monotonic()
        if now - wrote >= NOTE_SECONDS:
            wrote = now
            sink(before + done, {"domains": domains})

    return note


@contextmanager
def _measuring(context: Context, folder: Path) -> Iterator[Callable[[ScoredImages, Advance], torch.Tensor]]:
    """Give a function that measures the segmentor of a folder on a domain's images, here or on Ray workers."""
    settings = context.settings
    device = device_of(settings)
    if settings.evaluate.workers > 0:
        from gkd_core.cluster.evaluate import Share, measuring_on_ray

        share = Share(
            folder, settings.evaluate, device, settings.compute.threads, context.run_folder, settings.compute.start_minutes
        )
        with measuring_on_ray(share) as measure_domain:
            yield measure_domain
        return
    model = load_segmentor(folder).to(device)
    yield lambda images, advance: measure(model, images, settings.evaluate, torch.device(device), advance)


def scored_images(origin: Origin, domain: Domain, classes: int) -> ScoredImages:
    """The images of a domain, ready to be measured on."""
    encoding = origin.encoding(domain)
    return ScoredImages(origin.pairs(domain), encoding, origin.protocol(domain), classes)


def score(context: Context, place: Place, matrix: torch.Tensor, record: SegmentorCheckpoint, teacher: str) -> Score:
    """What a confusion matrix (classes, classes) says of a segmentor at a place, with the protocol that it was measured by.

    Raises:
        DataError: no pixel of the domain counts.
    """
    settings, domain = context.settings, context.domain(place.reference)
    protocol = domain.entry.protocol
    ious = class_iou(matrix)
    if not matrix.any():
        raise DataError(
            f"{domain}: every pixel of its labels is ignored, so there is nothing to score; check the dataset's encoding"
        )
    return Score(
        method=record.method,
        teacher=teacher,
        student=record.encoder.arch,
        seed=record.seed,
        label_fraction=record.label_fraction,
        field=record.field,
        encoder_frozen=record.encoder_frozen,
        benchmark=place.benchmark,
        source=record.source,
        domain=place.domain,
        dataset=domain.reference,
        in_domain=place.in_domain,
        miou=mean_iou(ious),
        class_iou=dict(zip(record.classes, ious, strict=True)),
        images=context.origin.count(domain),
        protocol=ScoreProtocol(
            scale=protocol.scale,
            scaling=protocol.scaling,
            max_size=protocol.max_size,
            labels_resized=protocol.resize_labels,
            window=settings.evaluate.window,
            stride=settings.evaluate.stride,
            scales=settings.evaluate.scales,
            flip=settings.evaluate.flip,
            precision=settings.evaluate.precision,
            classes=len(record.classes),
            selection=SELECTION,
        ),
    )
