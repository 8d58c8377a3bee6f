"""The methods under comparison, as data: what each does in stage one and in stage two."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from gkd_core.errors import SettingsError
from gkd_core.settings import MethodName, Settings


@dataclass(frozen=True)
class Method:
    """One way to get from a teacher to a segmentor.

    Attributes:
        distillation: objective of stages 1a and 1b, or None where the method has no stage one.
        encoder: the encoder that stage two puts its decoder on.
        freeze_encoder: whether stage two leaves the encoder as it is; the ablation `learn_task.freeze_encoder: false` aside.
        joint_distillation: whether stage two adds a distillation loss to the task loss.
        summary: what it learns from, for tables and reports; `describe` says it whole.
    """

    distillation: Literal["qsd", "mse"] | None
    encoder: Literal["student", "teacher"]
    freeze_encoder: bool
    joint_distillation: bool
    summary: str


METHODS: dict[MethodName, Method] = {
    "gkd": Method("qsd", "student", True, False, "features first by query-based soft distillation"),
    "two-stage-mse": Method("mse", "student", True, False, "features first by plain MSE"),
    "single-stage-mse": Method(None, "student", False, True, "task loss and feature MSE together, on the source only"),
    "no-kd": Method(None, "student", False, False, "task loss alone, on the source only"),
    "teacher": Method(None, "teacher", True, False, "the upper row: the teacher as it comes"),
}


def describe(method: Method, encoder_frozen: bool) -> str:
    """One line on a method, as it was run: with its encoder frozen in stage two, or trained on there (the ablation)."""
    if not method.freeze_encoder:
        return method.summary
    end = f"a decoder on the frozen {method.encoder}" if encoder_frozen else f"decoder and {method.encoder} trained together"
    return f"{method.summary}, then {end}"


def method_of(settings: Settings) -> Method:
    """The method that the settings name."""
    return METHODS[settings.method]


def is_teacher(name: str) -> bool:
    """Whether a method's name, which may come from elsewhere, is of one that puts its decoder on the teacher itself."""
    return any(name == known and method.encoder == "teacher" for known, method in METHODS.items())


def encoder_is_frozen(settings: Settings) -> bool:
    """Whether stage two leaves the encoder as it is: the method says so, and it is not the ablation that trains it on."""
    return method_of(settings).freeze_encoder and settings.learn_task.freeze_encoder


def task_updates(settings: Settings) -> int:
    """Updates of stage two. Methods without a stage one see as many images there as the others see in all stages."""
    if method_of(settings).freeze_encoder:
        return settings.learn_task.updates
    if settings.learn_task.end_to_end_updates is not None:
        return settings.learn_task.end_to_end_updates
    images = settings.learn_task.updates * settings.learn_task.batch_size
    for name, stage in (("distill_proxy", settings.distill_proxy), ("distill_source", settings.distill_source)):
        if stage.updates is None:
            raise SettingsError(
                f"learn_task.end_to_end_updates: {name} counts epochs, so that there is no sum of updates for method "
                f"{settings.method}; set a number (40000 is as long as stage two alone)"
            )
        images += stage.updates * stage.batch_size
    return math.ceil(images / settings.learn_task.batch_size)
