"""How domains are scored."""

from __future__ import annotations

from pydantic import Field, model_validator

from gkd_core.settings.base import PositiveInt, Section


class EvaluateSettings(Section):
    """The cross-domain matrix. A dataset entry's own protocol (input size) applies first."""

    window: tuple[PositiveInt, PositiveInt] = Field(
        (512, 512), description="Sliding window, (height, width) in pixels (released: 512)."
    )
    stride: tuple[PositiveInt, PositiveInt] = Field((341, 341), description="Step of the window in pixels (released: 341).")
    batch_size: PositiveInt = Field(8, description="Windows in one forward pass; changes speed only.")

    @model_validator(mode="after")
    def _no_gaps(self) -> EvaluateSettings:
        if any(step > side for step, side in zip(self.stride, self.window, strict=True)):
            raise ValueError(f"stride {self.stride} exceeds window {self.window}: pixels between windows would have no score")
        return self
