"""How domains are scored."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from gkd_core.settings.base import NonNegativeInt, PositiveFloat, PositiveInt, Section


class EvaluateSettings(Section):
    """The cross-domain matrix. A dataset entry's own protocol (input size) applies first."""

    window: tuple[PositiveInt, PositiveInt] = Field(
        (512, 512), description="Sliding window, (height, width) in pixels (released: 512)."
    )
    stride: tuple[PositiveInt, PositiveInt] = Field((341, 341), description="Step of the window in pixels (released: 341).")
    batch_size: PositiveInt = Field(8, description="Windows in one forward pass; changes speed only.")
    scales: tuple[PositiveFloat, ...] = Field(
        (1.0,),
        min_length=1,
        description="Sizes at which each image is seen, as factors of its protocol's; logits are averaged (released: 1). "
        "Known to be good: [0.75, 1.0, 1.25], +2.7 mIoU on Cityscapes for a released student.",
    )
    flip: bool = Field(False, description="Whether each image is seen mirrored too, logits averaged (released: false).")
    precision: Literal["fp32", "bf16"] = Field(
        "fp32", description="Arithmetic of the forward pass: fp32, or bf16 where possible (autocast). Scores may differ slightly."
    )
    workers: NonNegativeInt = Field(
        0,
        description="Ray workers that share out each domain's images, each on a GPU of its own where there is one; 0 measures in "
        "this process. Changes speed only.",
    )

    @model_validator(mode="after")
    def _no_gaps(self) -> EvaluateSettings:
        if any(step > side for step, side in zip(self.stride, self.window, strict=True)):
            raise ValueError(f"stride {self.stride} exceeds window {self.window}: pixels between windows would have no score")
        return self
