"""Stage `evaluate`: a source's segmentor on every domain of its benchmarks."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from gkd_core.errors import DataError
from gkd_core.evaluate.confusion import class_iou, mean_iou
from gkd_core.evaluate.matrix import Domain, measure
from gkd_core.files import atomic_folder
from gkd_core.models.segmentor import load_segmentor
from gkd_core.planning.size import student_size
from gkd_core.records import MANIFEST, Score, ScoreProtocol, ScoreTable, SegmentorCheckpoint
from gkd_core.stages.machine import device_of
from gkd_core.stages.recipe import SCORES, SIZE, Context, benchmarks, domains_of
from gkd_core.training.progress import Advance, progress

SELECTION = "last checkpoint"


def evaluate(context: Context) -> None:
    """Measure a source's segmentor on its own validation split and on every target of its benchmarks."""
    settings, catalog = context.settings, context.catalog
    torch.set_num_threads(settings.compute.threads)
    source = str(context.run.source)
    folder = context.workspace / context.run.inputs[0]
    record = SegmentorCheckpoint.read(folder / MANIFEST)
    student_size(record, folder / record.weights, settings.evaluate.window).write(context.run_folder / SIZE)
    matrices = {}
    with _measuring(context, folder) as measured_on:
        for reference in domains_of(settings, catalog, source):
            domain = _domain(context, reference, len(record.classes))
            with progress(f"evaluate {source} on {reference}", len(domain.pairs)) as advance:
                matrices[reference] = measured_on(domain, advance)
    scores = []
    for benchmark in benchmarks(settings, catalog):
        if benchmark.source.name != source:
            continue
        measured = {"in-domain": benchmark.validation, **benchmark.targets}
        scores += [
            _score(context, benchmark.name, domain, reference, matrices[reference], record)
            for domain, reference in measured.items()
        ]
    with atomic_folder(context.output) as folder:
        ScoreTable(scores=tuple(scores)).write(folder / SCORES)
        (folder / "confusion.json").write_text(json.dumps({name: matrix.tolist() for name, matrix in matrices.items()}) + "\n")


@contextmanager
def _measuring(context: Context, folder: Path) -> Iterator[Callable[[Domain, Advance], torch.Tensor]]:
    """Give a function that measures the segmentor of a folder on a domain, here or on Ray workers."""
    settings = context.settings
    device = device_of(settings)
    if settings.evaluate.workers > 0:
        from gkd_core.adapters.ray_evaluate import Share, measuring_on_ray

        share = Share(folder, settings.evaluate, device, settings.compute.threads, context.run_folder)
        with measuring_on_ray(share) as measured_on:
            yield measured_on
        return
    model = load_segmentor(folder).to(device)
    yield lambda domain, advance: measure(model, domain, settings.evaluate, torch.device(device), advance)


def _domain(context: Context, reference: str, classes: int) -> Domain:
    entry, split = context.catalog.domain(reference)
    origin = context.origin
    encoding = origin.encoding(context.catalog, entry, split)
    return Domain(origin.pairs(entry, split), encoding, origin.protocol(entry, split), classes)


def _score(
    context: Context, benchmark: str, domain: str, reference: str, matrix: torch.Tensor, record: SegmentorCheckpoint
) -> Score:
    settings = context.settings
    entry, split = context.catalog.domain(reference)
    ious = class_iou(matrix)
    if not matrix.any():
        raise DataError(
            f"{reference}: every pixel of its labels is ignored, so there is nothing to score; check the dataset's encoding"
        )
    return Score(
        method=settings.method,
        teacher=settings.teacher.arch,
        student=record.encoder.arch,
        seed=settings.seed,
        encoder_frozen=record.encoder_frozen,
        benchmark=benchmark,
        source=record.source,
        domain=domain,
        dataset=reference,
        in_domain=domain == "in-domain",
        miou=mean_iou(ious),
        class_iou=dict(zip(record.classes, ious, strict=True)),
        images=context.origin.count(entry, split),
        protocol=ScoreProtocol(
            scale=entry.protocol.scale,
            max_size=entry.protocol.max_size,
            labels_resized=entry.protocol.resize_labels,
            window=settings.evaluate.window,
            stride=settings.evaluate.stride,
            scales=settings.evaluate.scales,
            flip=settings.evaluate.flip,
            precision=settings.evaluate.precision,
            classes=len(record.classes),
            selection=SELECTION,
        ),
    )
