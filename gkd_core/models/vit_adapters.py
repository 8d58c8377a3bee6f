"""How timm's transformers are walked through, step by step: what differs between its classes, and nothing else.

A step-by-step walk is needed because a mask token has to take the place of patches after their embedding and before their
position is added, and because the decoder looks at blocks on the way.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from timm.layers.pos_embed import resample_abs_pos_embed_nhwc
from torch import Tensor, nn
from torch.nn import functional

from gkd_core.models.encoder import Tokens


class Entered(NamedTuple):
    """What the first block is given: the hidden state, and each block's further arguments (none where empty)."""

    hidden: Tensor
    extras: Sequence[Mapping[str, Tensor]] = ()


class Anatomy(Protocol):
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

    def as_map(self, backbone: Any, hidden: Tensor, rows: int, columns: int) -> Tensor:
        """A block's output, normed, as (B, C, rows, columns)."""


class PlainViT:
    """`VisionTransformer` and `VisionTransformerDistilled`: ViT, DeiT, DINO, DINOv2, CLIP, SigLIP."""

    options: Mapping[str, bool] = {"dynamic_img_size": True}

    def token_dim(self, backbone: Any) -> int:
        return int(backbone.embed_dim)

    def enter(self, backbone: Any, embedded: Tensor) -> Entered:
        return Entered(backbone.norm_pre(backbone.patch_drop(backbone._pos_embed(embedded))))

    def tokens(self, backbone: Any, hidden: Tensor) -> Tokens:
        normed = final_norm(backbone)(hidden)
        patches = normed[:, backbone.num_prefix_tokens :]
        # The class token is what the image as a whole was trained into; without one, the mean of the patches stands for it.
        return Tokens(normed[:, 0] if has_class_token(backbone) else patches.mean(dim=1), patches)

    def as_map(self, backbone: Any, hidden: Tensor, rows: int, columns: int) -> Tensor:
        patches = final_norm(backbone)(hidden)[:, backbone.num_prefix_tokens :]
        return patches.transpose(1, 2).unflatten(2, (rows, columns))


class RotaryViT(PlainViT):
    """`Eva`: EVA-02 and DINOv3. Positions enter each block's attention as rotations, beside a table (EVA-02) or alone."""

    def enter(self, backbone: Any, embedded: Tensor) -> Entered:
        hidden, rotations = backbone._pos_embed(embedded)
        depth = len(backbone.blocks)
        if rotations is None:
            return Entered(backbone.norm_pre(hidden))
        each = rotations if backbone.rope_mixed else [rotations] * depth
        return Entered(backbone.norm_pre(hidden), [{"rope": rotation} for rotation in each])


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

    def as_map(self, backbone: Any, hidden: Tensor, rows: int, columns: int) -> Tensor:
        # The neck follows the last block alone and changes the width: blocks are normed without weights.
        return functional.layer_norm(hidden, hidden.shape[-1:]).permute(0, 3, 1, 2)


# The module of timm that defines an architecture, to how its transformer is walked through. All else is a feature pyramid.
ANATOMIES: Mapping[str, Anatomy] = {
    "timm.models.vision_transformer": PlainViT(),
    "timm.models.deit": PlainViT(),
    "timm.models.eva": RotaryViT(),
    "timm.models.vision_transformer_sam": WindowedViT(),
}


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
