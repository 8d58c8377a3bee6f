"""An encoder in a role: teacher or student."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from gkd_core.settings.base import PositiveInt, Scalar, Section, Share


class EncoderSettings(Section):
    """One encoder: a timm architecture, its weights, and the grid that it sees."""

    arch: str = Field(description="Architecture name as timm knows it, such as vit_small_patch14_dinov2.")
    weights: str = Field(
        "random",
        description="'random', 'hub' (timm's own, needs the internet), 'demo' (shipped with the package), "
        "'package:NAME' (an installed weights package), or the path of a .safetensors or .pth file.",
    )
    patch_size: PositiveInt | None = Field(None, description="Patch side in pixels for a ViT; null keeps the architecture's.")
    image_size: PositiveInt | None = Field(
        None, description="Image side in pixels that the position table is laid out for; null keeps the architecture's."
    )
    token_strides: tuple[PositiveInt, ...] = Field(
        (16,), min_length=1, description="CNN only: strides of the maps joined, at stride 16, into the patch tokens."
    )
    options: dict[str, Scalar] = Field(
        default_factory=dict, description="Further arguments of the architecture, such as depth or embed_dim."
    )
    min_coverage: Share = Field(1.0, description="Least share of the model's tensors that a weights file must fill.")
    resize: Literal["released", "preserving"] = Field(
        "released",
        description="How loaded patch kernels and position tables reach the model's grid: 'released' (bicubic, as the authors) "
        "or 'preserving' (pseudo-inverse kernel, antialiased table, as timm).",
    )
