"""Stage `illustrate`: what a source's student sees, in pictures."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn

from gkd_core.data.augment.transforms import middle
from gkd_core.data.catalog.load import Domain
from gkd_core.distill.job import step_encoder
from gkd_core.distill.qsd import matching_weight
from gkd_core.distill.results import patch_attention, query_places, read_head
from gkd_core.distill.stage_one import frozen_teacher
from gkd_core.distill.teacher import Teacher
from gkd_core.evaluate.matrix import Prediction, predict
from gkd_core.evaluate.places import check_classes
from gkd_core.files import atomic_folder
from gkd_core.models.build import build_encoder
from gkd_core.models.segmentor import load_segmentor
from gkd_core.paths import PICTURES
from gkd_core.records import MANIFEST, EncoderCheckpoint, Picture, PictureList, SegmentorCheckpoint
from gkd_core.reports.panels import image_miou, panel_sheet, spaced
from gkd_core.reports.sheet import Sheet, save_sheet
from gkd_core.reports.token_sheets import TokenView, attention_sheet, domain_cka, feature_sheet
from gkd_core.seeding import seed_of
from gkd_core.settings import PictureKind
from gkd_core.stages.distill import OBJECTIVE
from gkd_core.stages.evaluate import scored_images
from gkd_core.stages.machine import absolute_weights, device_of, distilled_encoder
from gkd_core.stages.recipe import picture_kinds
from gkd_core.stages.student_record import check_student
from gkd_core.stages.work import Context
from gkd_core.training.progress import progress

Views = dict[str, list[TokenView]]  # by `dataset/split`


def illustrate(context: Context) -> None:
    """Draw the student of a source on its own validation split and on every target of its benchmarks."""
    torch.set_num_threads(context.settings.compute.threads)
    with atomic_folder(context.output) as folder:
        _Pictures(context, folder).draw()


class _Pictures:
    """All pictures of one source's student, drawn into a folder."""

    def __init__(self, context: Context, folder: Path) -> None:
        self._context, self._settings, self._folder = context, context.settings, folder
        self._kinds = picture_kinds(self._settings)
        self._source = str(context.run.source)
        self._segmentor = context.workspace / context.run.input("segmentor")
        self._record = SegmentorCheckpoint.read(self._segmentor / MANIFEST)
        for domain in context.recipe.measured_domains(self._source):
            check_classes(self._record, domain)
        self._whose = f"{self._record.method}, seed {self._record.seed}, {self._record.encoder.arch} from {self._source}"
        self._drawn: list[Picture] = []

    def draw(self) -> None:
        """Draw every kind, and write the list of what there is."""
        views = self._panels()
        if "features" in self._kinds:
            values = {reference: domain_cka(each) for reference, each in views.items()}
            sheet = feature_sheet(f"Features of teacher and student: {self._whose}", views)
            self._add("features", sheet, None, "linear CKA of teacher and student", values)
        if "attention" in self._kinds:
            self._attention(views)
        PictureList(
            method=self._record.method,
            student=self._record.encoder.arch,
            seed=self._record.seed,
            source=self._source,
            pictures=tuple(self._drawn),
        ).write(self._folder / PICTURES)

    def _panels(self) -> Views:
        """Go through the domains once: draw their panels, and keep what further kinds need of their images."""
        context, device = self._context, torch.device(device_of(self._settings))
        model = load_segmentor(self._segmentor).to(device)
        tokens = _TokenViews(context, device) if {"features", "attention"} & set(self._kinds) else None
        domains = context.recipe.measured_domains(self._source)
        views: Views = {}
        with progress(context.run.name, len(domains)) as advance:
            for done, domain in enumerate(domains, start=1):
                predictions = self._predictions(model, domain, device)
                if "panel" in self._kinds:
                    self._panel(domain, predictions)
                if tokens is not None:
                    views[domain.reference] = [tokens.of(name, prediction) for name, prediction in predictions.items()]
                advance(done)
        return views

    def _predictions(self, model: nn.Module, domain: Domain, device: torch.device) -> dict[str, Prediction]:
        """The images chosen of a domain, by name, with what the student makes of them."""
        context, settings = self._context, self._settings
        scored = scored_images(context.origin, domain, len(self._record.classes))
        pairs = [scored.pairs[index] for index in spaced(len(scored.pairs), settings.illustrate.images)]
        return {
            context.origin.name(domain, pair.image): predict(model, pair, scored, settings.evaluate, device) for pair in pairs
        }

    def _panel(self, domain: Domain, predictions: Mapping[str, Prediction]) -> None:
        sheet = panel_sheet(f"{domain}: {self._whose}", predictions, domain.taxonomy)
        values = {name: image_miou(prediction, len(self._record.classes)) for name, prediction in predictions.items()}
        self._add("panel", sheet, domain.reference, "mIoU of the image, %", values)

    def _attention(self, views: Views) -> None:
        heads = self._settings.distill_source.num_heads
        first = next(iter(views.values()))[0]
        head = read_head(_distilled(self._context) / OBJECTIVE, first.student.shape[1], first.teacher.shape[1], heads)
        maps = {
            reference: [patch_attention(head, view.student, view.teacher) for view in each] for reference, each in views.items()
        }
        values = {reference: float(matching_weight(torch.stack(each))) for reference, each in maps.items()}
        shown = {reference: (views[reference][0], each[0]) for reference, each in maps.items()}
        title = f"Attention of query-based soft distillation: {self._whose}"
        sheet = attention_sheet(title, shown, query_places(first.grid), values)
        self._add("attention", sheet, None, "weight on the own place", values)

    def _add(self, kind: PictureKind, sheet: Sheet, domain: str | None, measure: str, values: Mapping[str, float | None]) -> None:
        """Draw a sheet and note what it shows; `domain` is None where it shows all."""
        file = f"{kind}.png" if domain is None else f"{kind}-{domain.replace('/', '-')}.png"
        save_sheet(sheet, self._folder / file, self._settings.illustrate.pixels)
        picture = Picture(file=file, kind=kind, title=sheet.title, domain=domain, measure=measure, values=dict(values))
        self._drawn.append(picture)


class _TokenViews:
    """Images as stage one's teacher and student see them: their middle, at the size of its crops."""

    def __init__(self, context: Context, device: torch.device) -> None:
        settings, section = context.settings, context.settings.distill_source
        self._size, self._device = section.image_size, device
        folder = _distilled(context)
        check_student(EncoderCheckpoint.read(folder / MANIFEST), settings, section, folder / MANIFEST)
        student = build_encoder(distilled_encoder(folder), seed_of("student", settings.seed))
        self._student = student.eval().to(device)
        self._grid = student.grid(*self._size)
        teacher = frozen_teacher(step_encoder(absolute_weights(settings.teacher, context), section), settings.seed)
        self._teacher = Teacher(teacher.to(device), self._grid, "fp32", device)

    @torch.inference_mode()
    def of(self, name: str, prediction: Prediction) -> TokenView:
        """The view of an image, with both encoders' tokens, on the CPU."""
        image = middle(prediction.image, self._size)
        batch = image.unsqueeze(0).to(self._device)
        teacher, student = self._teacher.tokens(batch).patches[0], self._student.tokens(batch).patches[0]
        return TokenView(name, image, self._grid, teacher.cpu(), student.float().cpu())


def _distilled(context: Context) -> Path:
    """The folder that stage one has left the student in."""
    return context.workspace / context.run.input("distilled")
