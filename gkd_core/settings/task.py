"""Stage two: how the task is learnt."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from gkd_core.settings.base import PositiveFloat, PositiveInt, Section, Share, ascending


class LearnTaskSettings(Section):
    """Stage two: the decoder, on the source domain's labels."""

    updates: PositiveInt = Field(40_000, description="Optimizer updates (paper: 40 000).")
    batch_size: PositiveInt = Field(4, description="Images in one update (paper: 4).")
    image_size: tuple[PositiveInt, PositiveInt] = Field(
        (512, 512), description="Training crop, (height, width) in pixels (paper: 512 × 512)."
    )
    decoder: Literal["linear", "segformer"] = Field(
        "segformer", description="linear: a classifier on the patch tokens; segformer: an MLP head on four feature maps."
    )
    decoder_width: PositiveInt = Field(256, description="Channels inside the decoder.")
    lr: PositiveFloat = Field(1e-4, description="AdamW learning rate of the decoder (paper: 1e-4).")
    encoder_lr: PositiveFloat = Field(1e-4, description="AdamW learning rate of the encoder, for methods that train it here.")
    weight_decay: float = Field(0.05, ge=0, description="AdamW weight decay; none for norms and biases (paper: 0.05).")
    poly_power: PositiveFloat = Field(0.9, description="Power of the polynomial decay of the learning rate (paper: 0.9).")
    distill_weight: float = Field(
        1.0, ge=0, description="Weight of the distillation loss beside the task loss, for single-stage methods."
    )
    resize_range: Annotated[tuple[PositiveFloat, PositiveFloat], AfterValidator(ascending)] = Field(
        (0.5, 2.0), description="Random scale before the crop (paper: 0.5 to 2)."
    )
    cat_max_ratio: Share = Field(
        0.75, description="Largest share of a crop that one class may fill, tried ten times (paper: 0.75)."
    )
    color_jitter: float = Field(0.3, ge=0, description="Strength of random brightness, contrast and saturation.")
    end_to_end_updates: PositiveInt | None = Field(
        None,
        description="Updates for methods that train the encoder here; null gives them the sum of all stages' updates, "
        "so that budgets match.",
    )
    checkpoint_every: PositiveInt = Field(1000, description="Updates between two checkpoints.")
    log_every: PositiveInt = Field(50, description="Updates between two lines of metrics.")
