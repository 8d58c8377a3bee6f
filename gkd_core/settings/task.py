"""Stage two: how the task is learnt."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from gkd_core.settings.base import PositiveFloat, PositiveInt, PositiveShare, Section, Share, ascending
from gkd_core.settings.distill import Precision

FeatureNorm = Literal["none", "final"]


class Mask2FormerSettings(Section):
    """Mask2Former (Cheng et al. 2022). The defaults are the published ones, with which student and decoder have the paper's
    41.9 M (ViT-S) and 106.8 M (ViT-B) parameters."""

    queries: PositiveInt = Field(100, description="Queries: segments that an image can have (released: 100).")
    decoder_layers: PositiveInt = Field(9, description="Layers of the transformer decoder (released: 9).")
    pixel_layers: PositiveInt = Field(6, description="Layers of deformable attention in the pixel decoder (released: 6).")
    heads: PositiveInt = Field(8, description="Heads of every attention (released: 8).")
    feedforward: PositiveInt = Field(2048, description="Hidden channels of the decoder's MLPs (released: 2048).")
    pixel_feedforward: PositiveInt = Field(1024, description="Hidden channels of the pixel decoder's MLPs (released: 1024).")
    class_weight: float = Field(2.0, ge=0, description="Weight of the class loss and of its matching cost (released: 2).")
    mask_weight: float = Field(5.0, ge=0, description="Weight of the mask loss and of its matching cost (released: 5).")
    dice_weight: float = Field(5.0, ge=0, description="Weight of the dice loss and of its matching cost (released: 5).")
    no_object_weight: PositiveFloat = Field(0.1, description="Weight of 'no object' in the class loss (released: 0.1).")
    points: PositiveInt = Field(12_544, description="Points that a mask is compared at (released: 12 544, 112 × 112).")
    oversample: float = Field(3.0, ge=1, description="Random points drawn for each point kept as uncertain (released: 3).")
    importance: Share = Field(0.75, description="Share of the points that are kept as uncertain (released: 0.75).")
    ignored: Literal["background", "left-out"] = Field(
        "background",
        description="Pixels whose label is ignored. background: of every mask (released); left-out: no point of the loss looks "
        "at them, and an image of nothing else takes no part.",
    )


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
    feature_norm: FeatureNorm = Field(
        "none",
        description="Norm of the feature maps that segformer and mask2former see. none: a transformer's blocks as they are "
        "(released); final: each in the encoder's final norm. The maps of a CNN are the same either way: it has no final norm. "
        "The linear decoder sees the patch tokens, which are always in it.",
    )
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
    padding: Literal["mean", "black"] = Field(
        "mean",
        description="What fills a crop beyond an image that is smaller. mean: the encoder's mean, below and to the right of the "
        "finished crop (released); black: before flip and colours, so that it lies on either side and is coloured too.",
    )
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
