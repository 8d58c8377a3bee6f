"""Vision transformers of timm as encoders."""

from __future__ import annotations

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.nn import functional

from gkd_core.errors import DataError
from gkd_core.models.encoder import Encoder, Tokens

PYRAMID_STRIDES = (4, 8, 16, 32)


def pyramid_blocks(depth: int) -> list[int]:
    """Blocks whose outputs feed the decoder: 3, 5, 7, 11 of 12 and 7, 11, 15, 23 of 24, as released; alike for other depths."""
    return [max(0, depth * part // 12 - 1) for part in (4, 6, 8, 12)]


class ViTEncoder(Encoder):
    """A `VisionTransformer` built with `dynamic_img_size`, with a mask token for hidden patches."""

    def __init__(self, backbone: VisionTransformer, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__(mean, std)
        self.backbone = backbone
        self.mask_token = nn.Parameter(torch.zeros(backbone.embed_dim))
        self.dim = backbone.embed_dim
        self.map_dims = (self.dim, self.dim, self.dim, self.dim)
        self.token_stride = backbone.patch_embed.patch_size[0]

    def tokens(self, images: Tensor, mask: Tensor | None = None) -> Tokens:
        hidden = self.backbone.blocks(self._embed(images, mask))
        hidden = self.backbone.norm(hidden)
        patches = hidden[:, self.backbone.num_prefix_tokens :]
        # A ViT without a class token (SigLIP, say) is described as a whole by the mean of its patches.
        cls = hidden[:, 0] if self.backbone.cls_token is not None else patches.mean(dim=1)
        return Tokens(cls, patches)

    def feature_maps(self, images: Tensor) -> list[Tensor]:
        height, width = images.shape[-2:]
        taken = pyramid_blocks(len(self.backbone.blocks))
        hidden = self._embed(images, None)
        outputs = []
        for block in self.backbone.blocks:
            hidden = block(hidden)
            outputs.append(hidden)
        maps = [self._as_map(self.backbone.norm(outputs[index]), height, width) for index in taken]
        sizes = [(max(1, height // stride), max(1, width // stride)) for stride in PYRAMID_STRIDES]
        return [
            functional.interpolate(m, size=size, mode="bilinear", align_corners=False)
            for m, size in zip(maps, sizes, strict=True)
        ]

    def _embed(self, images: Tensor, mask: Tensor | None) -> Tensor:
        height, width = images.shape[-2:]
        if height % self.token_stride or width % self.token_stride:
            raise DataError(f"image of {height} × {width} pixels: both sides must be multiples of the patch, {self.token_stride}")
        embedded = self.backbone.patch_embed(self.normalise(images))
        if mask is not None:
            # Before the position table is added, so that a hidden patch still knows where it is.
            hide = mask.view(embedded.shape[:-1]).unsqueeze(-1)
            embedded = torch.where(hide, self.mask_token.to(embedded.dtype), embedded)
        return self.backbone.norm_pre(self.backbone.patch_drop(self.backbone._pos_embed(embedded)))

    def _as_map(self, hidden: Tensor, height: int, width: int) -> Tensor:
        rows, columns = self.grid(height, width)
        patches = hidden[:, self.backbone.num_prefix_tokens :]
        return patches.transpose(1, 2).reshape(hidden.shape[0], self.dim, rows, columns)
