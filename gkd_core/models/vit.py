"""Vision transformers of timm as encoders, with a mask token for hidden patches."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from timm.models._manipulate import checkpoint
from torch import Tensor, nn
from torch.nn import functional

from gkd_core.errors import DataError
from gkd_core.models.encoder import PYRAMID_STRIDES, Encoder, Tokens
from gkd_core.models.vit_adapters import Anatomy, has_class_token


def pyramid_blocks(depth: int) -> list[int]:
    """Blocks whose outputs feed the decoder: 3, 5, 7, 11 of 12 and 7, 11, 15, 23 of 24, as released; alike for other depths."""
    return [max(0, depth * part // 12 - 1) for part in (4, 6, 8, 12)]


class ViTEncoder(Encoder):
    """A transformer that sees an image as patches. `backbone` is timm's model, `anatomy` knows how to walk through it."""

    def __init__(self, backbone: Any, anatomy: Anatomy, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__(mean, std)
        self.backbone = backbone
        self.mask_token = nn.Parameter(torch.zeros(backbone.embed_dim))
        self._anatomy = anatomy
        self.dim = anatomy.token_dim(backbone)
        self.map_dims = (backbone.embed_dim,) * 4
        self.token_stride = backbone.patch_embed.patch_size[0]
        self.cls_is = "class token" if has_class_token(backbone) else "mean of patches"

    def tokens(self, images: Tensor, mask: Tensor | None = None) -> Tokens:
        (last,) = self._block_outputs(images, mask, [len(self.backbone.blocks) - 1])
        return self._anatomy.tokens(self.backbone, last)

    def feature_maps(self, images: Tensor) -> list[Tensor]:
        height, width = images.shape[-2:]
        outputs = self._block_outputs(images, None, pyramid_blocks(len(self.backbone.blocks)))
        maps = [self._anatomy.as_map(self.backbone, output, *self.grid(height, width)) for output in outputs]
        sizes = [(max(1, height // stride), max(1, width // stride)) for stride in PYRAMID_STRIDES]
        return [
            functional.interpolate(m, size=size, mode="bilinear", align_corners=False)
            for m, size in zip(maps, sizes, strict=True)
        ]

    def _block_outputs(self, images: Tensor, mask: Tensor | None, taken: Sequence[int]) -> list[Tensor]:
        """Hidden states after the blocks `taken`."""
        blocks = self.backbone.blocks
        hidden, extras = self._anatomy.enter(self.backbone, self._embed(images, mask))
        outputs: dict[int, Tensor] = {}
        for index, block in enumerate(blocks):
            step = partial(block, **extras[index]) if extras else block
            recompute = self.backbone.grad_checkpointing and torch.is_grad_enabled()
            hidden = checkpoint(step, hidden) if recompute else step(hidden)
            if index in taken:
                outputs[index] = hidden
        return [outputs[index] for index in taken]

    def _embed(self, images: Tensor, mask: Tensor | None) -> Tensor:
        """Patches (B, rows, columns, C) before they know where they are, the hidden ones replaced by the mask token."""
        height, width = images.shape[-2:]
        if height % self.token_stride or width % self.token_stride:
            raise DataError(f"image of {height} × {width} pixels: both sides must be multiples of the patch, {self.token_stride}")
        embedded: Tensor = self.backbone.patch_embed(self.normalise(images))
        if mask is None:
            return embedded
        # Before the position is added, so that a hidden patch still knows where it is.
        return torch.where(mask.view(embedded.shape[:-1]).unsqueeze(-1), self.mask_token.to(embedded.dtype), embedded)
