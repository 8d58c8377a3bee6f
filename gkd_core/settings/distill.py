"""Stage one: how features are distilled."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from gkd_core.settings.base import NonNegativeInt, PositiveFloat, PositiveInt, PositiveShare, Section, Share, ascending

Precision = Literal["fp32", "bf16", "fp16"]
EmaDecay = Annotated[float, Field(ge=0, lt=1)]
QueryStart = Literal["matching", "regression"]


class WarmStartSettings(Section):
    """Warm start of QSD (ours, not published): for the first updates there is no attention, and psi learns by plain MSE."""

    updates: NonNegativeInt = Field(0, description="Updates before the attention is switched on; 0 is the published form.")
    queries: QueryStart = Field(
        "matching",
        description="How phi learns meanwhile. matching: to point at each token's own place, by cross entropy of the attention, "
        "on student tokens held fixed. regression: to resemble the teacher's token, by MSE, together with the student.",
    )


class DistillSettings(Section):
    """One step of stage one (1a or 1b). Defaults are those of the released recipe."""

    updates: NonNegativeInt | None = Field(
        None, description="Optimizer updates; null where epochs says it. 0 in stage 1a leaves that stage out."
    )
    epochs: PositiveInt | None = Field(
        None,
        description="Passes over the images, whatever their number (released: 100 in 1a, 300 in 1b); null where updates says it.",
    )
    batch_size: PositiveInt = Field(description="Images in one update, over all workers together.")
    image_size: tuple[PositiveInt, PositiveInt] = Field(description="Training crop, (height, width) in pixels.")
    patch_size: PositiveInt | None = Field(
        None, description="Patch side of both ViTs in pixels (released: 14 at 224, 16 at 512); null keeps each encoder's own."
    )
    lr: PositiveFloat = Field(5e-4, description="Peak AdamW learning rate at a batch of lr_batch images (released: 5e-4 at 512).")
    lr_batch: PositiveInt | None = Field(512, description="Batch that lr is stated for, scaled linearly; null uses lr as it is.")
    min_lr: PositiveFloat = Field(1e-5, description="Learning rate at the end of the cosine.")
    warmup_updates: NonNegativeInt = Field(0, description="Updates of linear warm-up (released: 0).")
    warmup_lr: PositiveFloat = Field(1e-6, description="Learning rate that the warm-up starts from (released: 1e-6).")
    weight_decay: float = Field(0.05, ge=0, description="AdamW weight decay; none for norms, biases and single tokens.")
    clip_norm: PositiveFloat | None = Field(None, description="Largest global gradient norm; null does not clip.")
    accumulate: PositiveInt = Field(
        1, description="Micro-batches that one update's batch is cut into, for less memory: the gradient stays the whole batch's."
    )
    precision: Precision = Field(
        "fp16", description="Number format of the encoders' passes: fp32, bf16 or fp16 with a gradient scaler (released)."
    )
    ema_decay: EmaDecay | None = Field(
        0.99996, description="Decay of the weights' moving average, kept beside the raw weights (released); null keeps none."
    )
    augment: Literal["released", "light"] = Field(
        "released",
        description="'released': timm's crop, flip, RandAugment and random erasing; 'light': crop, flip and color_jitter.",
    )
    repeated_augmentation: PositiveInt = Field(
        3, description="Views of an image that follow one another in the batches, each drawn anew (released: 3)."
    )
    fixed_views: PositiveInt | None = Field(
        None,
        description="Views of an image there are at all, so that the teacher's tokens can be kept; null draws new ones for ever.",
    )
    crop_scale: Annotated[tuple[PositiveShare, PositiveShare], AfterValidator(ascending)] = Field(
        (0.08, 1.0), description="Area of a random resized crop, as a share of the image."
    )
    color_jitter: float = Field(
        0.3, ge=0, description="Strength of random brightness, contrast and saturation; timm leaves it out beside RandAugment."
    )
    num_heads: PositiveInt = Field(1, description="Heads of the QSD attention (released: 1).")
    cls_weight: float = Field(1.0, ge=0, description="Weight of the cls loss (released: 1).")
    feat_weight: float = Field(1.0, ge=0, description="Weight of the feature loss (released: 1).")
    mask_weight: float = Field(1.0, ge=0, description="Weight of the masked-view loss (released: 1).")
    mask_probability: Share = Field(0.5, description="Share of the batch, its first images, that is masked (released: 0.5).")
    mask_ratio: Share = Field(0.5, description="Share of a masked image's patches that are hidden (released: 0.5).")
    warm_start: WarmStartSettings = Field(WarmStartSettings(), description="Warm start of the QSD heads.")
    compile: bool = Field(
        False, description="Compile the encoders by torch.compile: faster on a GPU, after minutes at the start."
    )
    activation_checkpointing: bool = Field(
        False, description="Compute the student's activations again in the backward pass instead of keeping them: less memory."
    )
    checkpoint_every: PositiveInt = Field(1000, description="Updates between two checkpoints.")
    log_every: PositiveInt = Field(50, description="Updates between two lines of metrics.")

    def updates_for(self, images: int) -> int:
        """Optimizer updates on so many images: `updates`, or as many as make up `epochs`, at least one."""
        if self.updates is not None:
            return self.updates
        return max(1, (self.epochs or 0) * images // self.batch_size)

    @model_validator(mode="after")
    def _one_length(self) -> DistillSettings:
        if (self.updates is None) == (self.epochs is None):
            raise ValueError(f"given updates {self.updates} and epochs {self.epochs}; exactly one must be set, the other null")
        return self

    @model_validator(mode="after")
    def _fits_together(self) -> DistillSettings:
        if self.patch_size is not None and any(side % self.patch_size for side in self.image_size):
            raise ValueError(f"image_size {self.image_size} is not a multiple of patch_size {self.patch_size}")
        if self.batch_size % self.accumulate:
            raise ValueError(f"batch_size {self.batch_size} cannot be cut into {self.accumulate} equal parts (accumulate)")
        return self


class DistillSourceSettings(DistillSettings):
    """Stage 1b, which begins with what stage 1a left."""

    heads: Literal["fresh", "carried"] = Field(
        "fresh",
        description="The distillation heads at the start of 1b. fresh: drawn anew by the seed, only the student goes on "
        "(released); carried: 1a's go on too. Without a stage 1a they are fresh in any case.",
    )
