"""Light decoders: four feature maps, fine to coarse, to class logits at stride 4."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from gkd_core.errors import SettingsError


class LinearDecoder(nn.Module):
    """Batch norm and a linear classifier on each map; their logits, resampled to the finest, are added."""

    def __init__(self, map_dims: Sequence[int], classes: int) -> None:
        super().__init__()
        self.heads = nn.ModuleList(nn.Sequential(nn.BatchNorm2d(dim), nn.Conv2d(dim, classes, kernel_size=1)) for dim in map_dims)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Maps (B, C_i, H_i, W_i) to logits (B, classes, H_0, W_0)."""
        size = maps[0].shape[-2:]
        logits = [functional.interpolate(head(m), size=size, mode="bilinear", align_corners=False) for head, m in zip(self.heads, maps, strict=True)]
        return torch.stack(logits).sum(dim=0)


class SegformerDecoder(nn.Module):
    """SegFormer's all-MLP head (Xie et al. 2021) from transformers, without its dropout, which would make resuming inexact."""

    def __init__(self, map_dims: Sequence[int], classes: int, width: int) -> None:
        super().__init__()
        # Imported here: transformers takes seconds to load and the linear decoder does not need it.
        from transformers import SegformerConfig
        from transformers.models.segformer.modeling_segformer import SegformerDecodeHead

        config = SegformerConfig(
            hidden_sizes=list(map_dims),
            num_encoder_blocks=len(map_dims),
            decoder_hidden_size=width,
            num_labels=classes,
            classifier_dropout_prob=0.0,
        )
        self.head = SegformerDecodeHead(config)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Maps (B, C_i, H_i, W_i) to logits (B, classes, H_0, W_0)."""
        return cast(Tensor, self.head(tuple(maps)))


def build_decoder(name: str, map_dims: Sequence[int], classes: int, width: int) -> nn.Module:
    """A decoder by name, with random weights from torch's global random state.

    Raises:
        SettingsError: there is no decoder of that name.
    """
    if name == "linear":
        return LinearDecoder(map_dims, classes)
    if name == "segformer":
        return SegformerDecoder(map_dims, classes, width)
    raise SettingsError(f"decoder: unknown decoder '{name}'; allowed: linear, segformer")
