"""Stage two: how the task is learnt."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from gkd_core.settings.base import PositiveFloat, PositiveInt, PositiveShare, Section, Share, ascending
from gkd_core.settings.distill import Precision
from gkd_core.settings.mask2former import Mask2FormerSettings


class LearnTaskSettings(Section):
    """Stage two: the decoder, on the source domain's labels. The defaults are the published recipe."""

    updates: PositiveInt = Field(40_000, description="Optimizer updates (paper: 40 000).")
    label_fraction: PositiveShare = Field(
        1.0,
        description="Share of the source's labelled images that are learnt from (paper: 1; also 1/4, 1/8, 1/16). Drawn by the "
        "seed, the smaller within the larger; stage one sees all images. The list is the output's labelled.txt.",
    )
    batch_size: PositiveInt = Field(4, description="Images in one update (paper: 4).")
    image_size: tuple[PositiveInt, PositiveInt] = Field(
        (512, 512), description="Training crop, (height, width) in pixels (paper: 512 × 512)."
    )
    freeze_encoder: bool = Field(
        True,
        description="Whether the encoder of a method that freezes it here stays as it is (paper: true). false is the ablation: "
        "it is trained on from stage one's weights, at encoder_lr. Methods without a stage one train theirs in any case.",
    )
    decoder: Literal["linear", "segformer", "mask2former"] = Field(
        "mask2former",
        description="linear: a classifier on the patch tokens; segformer: an MLP head on four feature maps; mask2former: "
        "queries that each find a class and its mask (released).",
    )
    decoder_width: PositiveInt = Field(256, description="Channels inside the decoder (released: 256).")
    mask2former: Mask2FormerSettings = Field(Mask2FormerSettings(), description="The decoder mask2former.")
    lr: PositiveFloat = Field(1e-4, description="AdamW learning rate of the decoder (paper: 1e-4).")
    encoder_lr: PositiveFloat = Field(
        1e-5, description="AdamW learning rate of the encoder where it is trained here (paper: 1e-5)."
    )
    weight_decay: float = Field(
        0.05, ge=0, description="AdamW weight decay; none for norms, biases, query and level embeddings (paper: 0.05)."
    )
    clip_norm: PositiveFloat | None = Field(
        None, description="Largest global gradient norm; null does not clip (released: null; mmsegmentation's Mask2Former: 0.01)."
    )
    precision: Precision = Field(
        "fp32", description="Number format of the passes: fp32 (released), bf16, or fp16 with a gradient scaler."
    )
    accumulate: PositiveInt = Field(
        1,
        description="Micro-batches that one update's batch is cut into, for less memory. Each has its own mean over the pixels "
        "or masks that count.",
    )
    poly_power: PositiveFloat = Field(0.9, description="Power of the polynomial decay of the learning rate (paper: 0.9).")
    distill_weight: float = Field(
        1.0, ge=0, description="Weight of the distillation loss beside the task loss, for single-stage methods."
    )
    resize_range: Annotated[tuple[PositiveFloat, PositiveFloat], AfterValidator(ascending)] = Field(
        (0.5, 2.0), description="Random scale before the crop (paper: 0.5 to 2)."
    )
    resize_of: Literal["crop", "image"] = Field(
        "crop",
        description="What resize_range scales. crop: the image's shorter edge becomes that many of the crop's, in tenths "
        "(released); image: the image itself, whatever its size.",
    )
    longest_edge: PositiveInt | None = Field(
        2048, description="Longest edge in pixels that resize_of crop may give; null sets no bound (released: 2048)."
    )
    cat_max_ratio: Share = Field(
        0.75, description="Largest share of a crop that one class may fill, tried ten times (paper: 0.75)."
    )
    colors: Literal["distortion", "jitter"] = Field(
        "distortion",
        description="distortion: mmsegmentation's random brightness, contrast, saturation and hue (released); jitter: the first "
        "three, milder, by color_jitter.",
    )
    color_jitter: float = Field(0.3, ge=0, description="Strength of the jitter of colors: jitter; 0 leaves colours as they are.")
    end_to_end_updates: PositiveInt | None = Field(
        None,
        description="Updates for methods without a stage one; null gives them the sum of all stages' updates, "
        "so that budgets match.",
    )
    checkpoint_every: PositiveInt = Field(1000, description="Updates between two checkpoints.")
    log_every: PositiveInt = Field(50, description="Updates between two lines of metrics.")

    @model_validator(mode="after")
    def _equal_parts(self) -> LearnTaskSettings:
        if self.batch_size % self.accumulate:
            raise ValueError(f"batch_size {self.batch_size} cannot be cut into {self.accumulate} equal parts (accumulate)")
        return self
