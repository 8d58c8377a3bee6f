"""The Mask2Former decoder of stage two."""

from __future__ import annotations

from pydantic import Field

from gkd_core.settings.base import PositiveFloat, PositiveInt, Section, Share


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
