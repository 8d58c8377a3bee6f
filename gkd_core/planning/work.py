"""The work of each stage of a run: what is read, how often, and what that takes."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from gkd_core.data.catalog.load import Domain
from gkd_core.data.files.folders import field_images
from gkd_core.data.order.sampling import fraction_of
from gkd_core.distill.job import step_encoder
from gkd_core.errors import DataError
from gkd_core.methods import method_of, task_updates
from gkd_core.models.flops import Cost, Size, segmentor_cost
from gkd_core.planning.counts import image_count, image_size
from gkd_core.planning.flops import distillation_cost, task_cost
from gkd_core.settings import DistillSettings, EncoderSettings, EvaluateSettings
from gkd_core.stages.facts import DISTILL_PROXY, DISTILL_SOURCE, EVALUATE, LEARN_TASK
from gkd_core.stages.recipe import Recipe
from gkd_core.stages.run import StageRun

SECONDS_IN_AN_HOUR = 3600


@dataclass(frozen=True)
class Machine:
    """One accelerator: its peak in TFLOP/s, and the share of it that training reaches (MFU, model FLOPs utilisation)."""

    peak_tflops: float
    mfu: float

    def hours(self, flops: float) -> float:
        """Hours that this one accelerator takes for a number of FLOPs."""
        return flops / (self.peak_tflops * 1e12 * self.mfu) / SECONDS_IN_AN_HOUR


@dataclass(frozen=True)
class StageWork:
    """What one stage run does.

    Attributes:
        name: name of the stage run.
        images: distinct images that it reads; None where nobody knows.
        batch_size: images in an update; 1 for evaluation, which has no updates.
        updates: optimizer updates; None where they depend on an unknown number of images, or there are none.
        views: images that go through the model, windows counted one by one; None where nobody knows.
        costs: part of the model to its cost; FLOPs are those of one view.
    """

    name: str
    images: int | None
    batch_size: int
    updates: int | None
    views: int | None
    costs: Mapping[str, Cost]

    @property
    def flops_of_a_view(self) -> float:
        """FLOPs of all parts together, for one view."""
        return sum(cost.flops for cost in self.costs.values())

    @property
    def flops(self) -> float | None:
        """FLOPs of the whole stage run; None where the number of views is unknown."""
        return None if self.views is None else self.views * self.flops_of_a_view


def plan_work(recipe: Recipe, workspace: Path, proxy_images: int | None = None) -> list[StageWork]:
    """The work of every stage of the plan that trains or measures, in the order in which they run.

    Args:
        proxy_images: images of the proxy, instead of those found or stated in the catalog.

    Raises:
        SettingsError: an architecture is unknown, or a setting impossible.
        DataError: a dataset that the settings name is unknown.
    """
    estimate = _Estimate(recipe, workspace, proxy_images)
    makers = {
        DISTILL_PROXY.name: estimate.distill_proxy,
        DISTILL_SOURCE.name: estimate.distill_source,
        LEARN_TASK.name: estimate.learn_task,
        EVALUATE.name: estimate.evaluate,
    }
    return [makers[run.stage](run) for run in recipe.plan if run.stage in makers]


def window_count(size: Size, settings: EvaluateSettings) -> int:
    """Windows that an image (height, width) is looked at through, over all scales and with its mirror image where asked."""
    return (1 + settings.flip) * sum(
        math.prod(
            max(0, math.ceil((max(1, round(side * scale)) - window) / step)) + 1
            for side, window, step in zip(size, settings.window, settings.stride, strict=True)
        )
        for scale in settings.scales
    )


class _Estimate:
    """One stage run after another; a cost that several of them have is counted once."""

    def __init__(self, recipe: Recipe, workspace: Path, proxy_images: int | None) -> None:
        self.recipe, self.settings, self.workspace = recipe, recipe.settings, workspace
        self.proxy_images = proxy_images
        self.method = method_of(recipe.settings)
        self._counted: dict[Hashable, dict[str, Cost]] = {}

    def distill_proxy(self, run: StageRun) -> StageWork:
        counted = (
            self._image_counts([self.recipe.catalog.domain(self.settings.data.proxy)])
            if self.proxy_images is None
            else [self.proxy_images]
        )
        return self._distill(run, self.settings.distill_proxy, _sum([*counted, *self._field_count()]))

    def _field_count(self) -> list[int | None]:
        """How many images of the field join the proxy; None where they are not at hand."""
        folder = self.settings.data.field
        if folder is None:
            return []
        try:
            return [len(field_images(self.workspace / folder))]
        except DataError:
            return [None]

    def distill_source(self, run: StageRun) -> StageWork:
        return self._distill(run, self.settings.distill_source, _sum(self._image_counts(self._parts(run))))

    def learn_task(self, run: StageRun) -> StageWork:
        settings, section = self.settings, self.settings.learn_task
        costs = task_cost(self._segmentor(run, section.image_size), settings)
        updates = task_updates(settings)
        counts = self._image_counts(self._parts(run))
        images = _sum([None if count is None else fraction_of(count, section.label_fraction) for count in counts])
        return StageWork(run.name, images, section.batch_size, updates, updates * section.batch_size, costs)

    def evaluate(self, run: StageRun) -> StageWork:
        settings = self.settings
        costs = self._segmentor(run, settings.evaluate.window)
        domains = self.recipe.measured_domains(str(run.source))
        images = self._image_counts(domains)
        windows = [self._windows(domain, count) for domain, count in zip(domains, images, strict=True)]
        return StageWork(run.name, _sum(images), 1, None, _sum(windows), costs)

    def _windows(self, domain: Domain, images: int | None) -> int | None:
        size = image_size(self.recipe, domain, self.workspace)
        if images is None or size is None:
            return None
        return images * window_count(domain.entry.protocol.input_size(*size), self.settings.evaluate)

    def _distill(self, run: StageRun, section: DistillSettings, images: int | None) -> StageWork:
        settings, objective = self.settings, str(self.method.distillation)
        updates = section.updates if images is None else section.updates_for(images)
        costs = self._once(run.stage, lambda: distillation_cost(section, objective, settings.teacher, settings.student))
        views = None if updates is None else updates * section.batch_size
        return StageWork(run.name, images, section.batch_size, updates, views, costs)

    def _segmentor(self, run: StageRun, size: Size) -> dict[str, Cost]:
        """Forward cost of the source's segmentor on an image of a size (height, width)."""
        classes = len(self._parts(run)[0].taxonomy.classes)
        return self._once(
            ("segmentor", classes, size),
            lambda: segmentor_cost(self.method.encoder, self._task_encoder(), self.settings.learn_task, classes, size),
        )

    def _task_encoder(self) -> EncoderSettings:
        """The encoder of stage two, on the grid that stage one leaves it with."""
        if self.method.encoder == "teacher":
            return self.settings.teacher
        if self.method.distillation is None:
            return self.settings.student
        return step_encoder(self.settings.student, self.settings.distill_source)

    def _parts(self, run: StageRun) -> list[Domain]:
        """The parts of what a stage run learns from."""
        return self.recipe.parts(str(run.source))

    def _image_counts(self, domains: Sequence[Domain]) -> list[int | None]:
        return [image_count(self.recipe, domain, self.workspace) for domain in domains]

    def _once(self, key: Hashable, count: Callable[[], dict[str, Cost]]) -> dict[str, Cost]:
        if key not in self._counted:
            self._counted[key] = count()
        return self._counted[key]


def _sum(counts: Sequence[int | None]) -> int | None:
    """The sum; None where one of them is unknown."""
    known = [count for count in counts if count is not None]
    return sum(known) if len(known) == len(counts) else None
