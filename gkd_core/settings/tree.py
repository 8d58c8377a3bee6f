"""The whole tree: one section a stage."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from gkd_core.settings.base import NonNegativeInt, PositiveInt, Section
from gkd_core.settings.data import DataSettings
from gkd_core.settings.distill import DistillSettings, DistillSourceSettings
from gkd_core.settings.encoder import EncoderSettings
from gkd_core.settings.evaluate import EvaluateSettings
from gkd_core.settings.illustrate import IllustrateSettings
from gkd_core.settings.machine import ComputeSettings, TrackingSettings
from gkd_core.settings.registry import RegistrySettings
from gkd_core.settings.task import LearnTaskSettings

MethodName = Literal["gkd", "two-stage-mse", "single-stage-mse", "no-kd", "teacher"]


class Settings(Section):
    """All settings of one run."""

    recipe_version: PositiveInt = Field(
        3, description="Raised when the code changes what a stage computes, so that DVC runs every stage again."
    )
    method: MethodName = Field(
        "gkd", description="gkd, a rival under the same budget, or 'teacher' (a decoder on the frozen teacher)."
    )
    seed: NonNegativeInt = Field(0, description="Seed of initial weights, batches, crops and masks.")
    data: DataSettings = Field(DataSettings(), description="Datasets.")
    teacher: EncoderSettings = Field(
        EncoderSettings(arch="vit_base_patch14_dinov2", weights="hub"), description="The foundation model."
    )
    student: EncoderSettings = Field(
        EncoderSettings(arch="deit_small_patch16_224", weights="hub"), description="The model that is distilled."
    )
    distill_proxy: DistillSettings = Field(
        DistillSettings(updates=250_000, batch_size=512, image_size=(224, 224), patch_size=14),
        description="Stage 1a, on proxy images (released: 100 epochs).",
    )
    distill_source: DistillSourceSettings = Field(
        DistillSourceSettings(updates=58_500, batch_size=128, image_size=(512, 512), patch_size=16),
        description="Stage 1b, on the source's images (released: 300 epochs).",
    )
    learn_task: LearnTaskSettings = Field(LearnTaskSettings(), description="Stage two.")
    evaluate: EvaluateSettings = Field(EvaluateSettings(), description="The cross-domain matrix.")
    illustrate: IllustrateSettings = Field(IllustrateSettings(), description="Pictures of what a student sees.")
    compute: ComputeSettings = Field(ComputeSettings(), description="The machine.")
    tracking: TrackingSettings = Field(TrackingSettings(), description="MLflow.")
    registry: RegistrySettings = Field(RegistrySettings(), description="The registry of students, and its gate.")
