"""The work of each stage of a run: what is read, how often, and what that takes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from gkd_core.data.catalog import Catalog
from gkd_core.methods import encoder_is_frozen, method_of, task_updates
from gkd_core.planning.counts import image_count
from gkd_core.planning.flops import Cost, Size, distillation_cost, segmentor_cost, task_cost
from gkd_core.settings import DistillSettings, EncoderSettings, EvaluateSettings, Settings
from gkd_core.stages.recipe import StageRun, domains_of, plan, sources, updates_of

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


def plan_work(settings: Settings, catalog: Catalog, workspace: Path) -> list[StageWork]:
    """The work of every stage of the plan that trains or measures, in the order in which they run.

    Raises:
        SettingsError: an architecture is unknown, or a setting impossible.
        DataError: a dataset that the settings name is unknown.
    """
    estimate = _Estimate(settings, catalog, workspace)
    makers = {
        "distill-proxy": estimate.distill_proxy,
        "distill-source": estimate.distill_source,
        "learn-task": estimate.learn_task,
        "evaluate": estimate.evaluate,
    }
    return [makers[run.stage](run) for run in plan(settings, catalog) if run.stage in makers]


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
    """One stage run after another; costs of equal models are counted once."""

    def __init__(self, settings: Settings, catalog: Catalog, workspace: Path) -> None:
        self.settings, self.catalog, self.workspace = settings, catalog, workspace
        self._counted: dict[str, dict[str, Cost]] = {}

    def distill_proxy(self, run: StageRun) -> StageWork:
        return self._distill(run, self.settings.distill_proxy, self.settings.data.proxy)

    def distill_source(self, run: StageRun) -> StageWork:
        return self._distill(run, self.settings.distill_source, self._reference(run))
