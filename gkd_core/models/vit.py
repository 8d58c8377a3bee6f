"""Vision transformers of timm as encoders, with a mask token for hidden patches.

They are walked through step by step, because the mask token has to take the place of patches after their embedding and before
their position is added, and because the decoder looks at blocks on the way. An `ViTAdapter` says what differs between timm's
classes, and nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple, Protocol, cast

import torch
from timm.layers.pos_embed import resample_abs_pos_embed_nhwc
from timm.models._manipulate import checkpoint
from torch import Tensor, nn
from torch.nn import functional

from gkd_core.errors import DataError
from gkd_core.models.encoder import PYRAMID_STRIDES, Encoder, Tokens
from gkd_core.models.resize import Layout, ResizeMethod, sight_table
from gkd_core.settings import FeatureNorm


class Entered(NamedTuple):
    """What the first block is given: the hidden state, and each block's further arguments (none where empty)."""

    hidden: Tensor
    extras: Sequence[Mapping[str, Tensor]] = ()


class ViTAdapter(Protocol):
    """One class of timm's. `embedded` is (B, rows, columns, C); `hidden` is whatever the class passes between its blocks.

    Attributes:
        options: arguments without which the class takes images of one size only.
    """

    options: Mapping[str, bool]

    def token_dim(self, backbone: Any) -> int:
        """Channels of the tokens."""

    def enter(self, backbone: Any, embedded: Tensor) -> Entered:
        """Add positions and prefix tokens."""

    def tokens(self, backbone: Any, hidden: Tensor) -> Tokens:
        """The last block's output in the final norm."""

    def normed(self, backbone: Any, hidden: Tensor) -> Tensor:
        """A block's output in the final norm."""

    def as_map(self, backbone: Any, hidden: Tensor, rows: int, columns: int) -> Tensor:
        """A block's output, as it is, as (B, C, rows, columns)."""


class PlainViT:
    """`VisionTransformer` and `VisionTransformerDistilled`: ViT, DeiT, DINO, DINOv2, CLIP, SigLIP."""

    options: Mapping[str, bool] = {"dynamic_img_size": True}

    def token_dim(self, backbone: Any) -> int:
        return int(backbone.embed_dim)

    def enter(self, backbone: Any, embedded: Tensor) -> Entered:
        return Entered(backbone.norm_pre(backbone.patch_drop(backbone._pos_embed(embedded))))

    def tokens(self, backbone: Any, hidden: Tensor) -> Tokens:
        normed = self.normed(backbone, hidden)
        patches = normed[:, backbone.num_prefix_tokens :]
        # The class token is what the image as a whole was trained into; without one, the mean of the patches stands for it.
        return Tokens(normed[:, 0] if has_class_token(backbone) else patches.mean(dim=1), patches)

    def normed(self, backbone: Any, hidden: Tensor) -> Tensor:
        normed: Tensor = final_norm(backbone)(hidden)
        return normed

    def as_map(self, backbone: Any, hidden: Tensor, rows: int, columns: int) -> Tensor:
        return hidden[:, backbone.num_prefix_tokens :].transpose(1, 2).unflatten(2, (rows, columns))


class ReleasedPlainViT(PlainViT):
    """`PlainViT` whose table is resampled, for an image of another grid, as the authors' backbones do it."""

    def enter(self, backbone: Any, embedded: Tensor) -> Entered:
        if laid_out_for(backbone, embedded):
            return super().enter(backbone, embedded)
        return Entered(backbone.norm_pre(backbone.patch_drop(placed(backbone, embedded))))


class RotaryViT(PlainViT):
    """`Eva`: EVA-02 and DINOv3. Positions enter each block's attention as rotations, beside a table (EVA-02) or alone."""

    def enter(self, backbone: Any, embedded: Tensor) -> Entered:
        hidden, rotations = backbone._pos_embed(embedded)
        return self._rotated(backbone, hidden, rotations)

    def _rotated(self, backbone: Any, hidden: Tensor, rotations: Any) -> Entered:
        depth = len(backbone.blocks)
        if rotations is None:
            return Entered(backbone.norm_pre(hidden))
        each = rotations if backbone.rope_mixed else [rotations] * depth
        return Entered(backbone.norm_pre(hidden), [{"rope": rotation} for rotation in each])


class ReleasedRotaryViT(RotaryViT):
    """`RotaryViT` with its table as `ReleasedPlainViT`'s; rotations are computed for any grid."""

    def enter(self, backbone: Any, embedded: Tensor) -> Entered:
        if laid_out_for(backbone, embedded):
            return super().enter(backbone, embedded)
        rotations = None if backbone.rope is None else backbone.rope.get_embed(shape=tuple(embedded.shape[1:3]))
        return self._rotated(backbone, placed(backbone, embedded), rotations)


class WindowedViT:
    """`VisionTransformerSAM`: a map throughout, attention in windows, no class token, convolutions (the neck) at the end."""

    options: Mapping[str, bool] = {}

    def token_dim(self, backbone: Any) -> int:
        return int(backbone.num_features)

    def enter(self, backbone: Any, embedded: Tensor) -> Entered:
        if backbone.pos_embed is not None:
            embedded = embedded + resample_abs_pos_embed_nhwc(backbone.pos_embed, list(embedded.shape[1:3]))
        return Entered(backbone.norm_pre(backbone.patch_drop(backbone.pos_drop(embedded))))

    def tokens(self, backbone: Any, hidden: Tensor) -> Tokens:
        """The neck's output, which is what SAM's own decoder reads; it ends in a norm."""
        patches = backbone.neck(hidden.permute(0, 3, 1, 2)).flatten(2).transpose(1, 2)
        return Tokens(patches.mean(dim=1), patches)

    def normed(self, backbone: Any, hidden: Tensor) -> Tensor:
        # The neck follows the last block alone and changes the width: blocks are normed without weights.
        return functional.layer_norm(hidden, hidden.shape[-1:])

    def as_map(self, backbone: Any, hidden: Tensor, rows: int, columns: int) -> Tensor:
        return hidden.permute(0, 3, 1, 2)


Adapters = Mapping[ResizeMethod, ViTAdapter]
PLAIN: Adapters = {"released": ReleasedPlainViT(), "preserving": PlainViT()}

# The module of timm that defines an architecture, to the adapters of its transformers, by how they resize a table. All else is a
# feature pyramid. The authors have no windowed transformer: there is nothing of theirs to follow.
VIT_ADAPTERS: Mapping[str, Adapters] = {
    "timm.models.vision_transformer": PLAIN,
    "timm.models.deit": PLAIN,
    "timm.models.eva": {"released": ReleasedRotaryViT(), "preserving": RotaryViT()},
    "timm.models.vision_transformer_sam": dict.fromkeys(("released", "preserving"), WindowedViT()),
}


def laid_out_for(backbone: Any, embedded: Tensor) -> bool:
    """Whether the position table, if there is one, is laid out for the grid of the patches (B, rows, columns, C)."""
    return backbone.pos_embed is None or tuple(backbone.patch_embed.grid_size) == tuple(embedded.shape[1:3])


def placed(backbone: Any, embedded: Tensor) -> Tensor:
    """Patches (B, rows, columns, C) behind their prefix tokens, each with its position from a table of another grid."""
    rows, columns = embedded.shape[1:3]
    table = sight_table(backbone.pos_embed, table_layout(backbone), (rows, columns))
    return with_positions(backbone, embedded, table)


def table_layout(backbone: Any) -> Layout:
    """How the position table of a transformer that has one is laid out."""
    return Layout(0 if backbone.no_embed_class else backbone.num_prefix_tokens, *backbone.patch_embed.grid_size)


def with_positions(backbone: Any, embedded: Tensor, table: Tensor | None) -> Tensor:
    """Patches (B, rows, columns, C) behind their prefix tokens, with the entries of a table for their grid if there is one."""
    tokens = [getattr(backbone, name, None) for name in ("cls_token", "dist_token", "reg_token")]
    prefix = [token.expand(embedded.shape[0], -1, -1) for token in tokens if token is not None]
    patches = embedded.flatten(1, 2)
    if table is None:
        return cast(Tensor, backbone.pos_drop(torch.cat([*prefix, patches], dim=1)))
    if backbone.no_embed_class:
        return cast(Tensor, backbone.pos_drop(torch.cat([*prefix, patches + table], dim=1)))
    return cast(Tensor, backbone.pos_drop(torch.cat([*prefix, patches], dim=1) + table))


def has_class_token(backbone: Any) -> bool:
    """Whether the first token stands for the whole image. SAM and SigLIP have none; registers are none."""
    return getattr(backbone, "cls_token", None) is not None


def final_norm(backbone: Any) -> nn.Module:
    """The norm after the last block: `norm`, or `fc_norm` where timm moved it behind its pooling (EVA-02)."""
    moved = isinstance(backbone.norm, nn.Identity)
    norm: nn.Module = backbone.fc_norm if moved else backbone.norm
    return norm


def strip_head(backbone: Any) -> None:
    """Take away what follows the tokens: a classifier, an attention pool, a second norm. It would be trained by nothing."""
    backbone.reset_classifier(0, "")
    if hasattr(backbone, "fc_norm") and final_norm(backbone) is not backbone.fc_norm:
        backbone.fc_norm = nn.Identity()


def pyramid_blocks(depth: int) -> list[int]:
    """Blocks whose outputs feed the decoder: 3, 5, 7, 11 of 12 and 7, 11, 15, 23 of 24, as released; alike for other depths."""
    return [max(0, depth * part // 12 - 1) for part in (4, 6, 8, 12)]


class ViTEncoder(Encoder):
    """A transformer that sees an image as patches. `backbone` is timm's model, `adapter` knows how to run it step by step."""

    def __init__(self, backbone: Any, adapter: ViTAdapter, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__(mean, std)
        self.backbone = backbone
        self.mask_token = nn.Parameter(torch.zeros(backbone.embed_dim))
        self.adapter = adapter
        self.dim = adapter.token_dim(backbone)
        self.map_dims = (backbone.embed_dim,) * 4
        self.token_stride = backbone.patch_embed.patch_size[0]
        self.cls_is = "class token" if has_class_token(backbone) else "mean of patches"

    def tokens(self, images: Tensor, mask: Tensor | None = None) -> Tokens:
        (last,) = self._block_outputs(images, mask, [len(self.backbone.blocks) - 1])
        return self.adapter.tokens(self.backbone, last)

    def feature_maps(self, images: Tensor, norm: FeatureNorm = "none") -> list[Tensor]:
        height, width = images.shape[-2:]
        outputs = self._block_outputs(images, None, pyramid_blocks(len(self.backbone.blocks)))
        if norm == "final":
            outputs = [self.adapter.normed(self.backbone, output) for output in outputs]
        maps = [self.adapter.as_map(self.backbone, output, *self.grid(height, width)) for output in outputs]
        sizes = [(max(1, height // stride), max(1, width // stride)) for stride in PYRAMID_STRIDES]
        return [
            functional.interpolate(m, size=size, mode="bilinear", align_corners=False)
            for m, size in zip(maps, sizes, strict=True)
        ]

    def _block_outputs(self, images: Tensor, mask: Tensor | None, taken: Sequence[int]) -> list[Tensor]:
        """Hidden states after the blocks `taken`."""
        blocks = self.backbone.blocks
        hidden, extras = self.adapter.enter(self.backbone, self._embed(images, mask))
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
