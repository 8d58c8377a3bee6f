"""Decoders: each says which of an encoder's features it looks at, turns them into class logits, and knows its loss."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from torch import Tensor, nn
from torch.nn import functional

from gkd_core.data.catalog.taxonomy import IGNORE
from gkd_core.errors import SettingsError
from gkd_core.models.encoder import Encoder
from gkd_core.models.mask2former import Mask2FormerDecoder
from gkd_core.settings import FeatureNorm, Mask2FormerSettings

DECODERS = ("linear", "segformer", "mask2former")
PUBLISHED_MASK2FORMER = Mask2FormerSettings()


class LinearDecoder(nn.Module):
    """A linear classifier on the patch tokens: it adds nothing of its own, so its score is that of the features."""

    def __init__(self, dim: int, classes: int) -> None:
        super().__init__()
        self.classifier = nn.Conv2d(dim, classes, kernel_size=1)

    def features(self, encoder: Encoder, images: Tensor) -> list[Tensor]:
        """The patch tokens as one map (B, C, rows, columns)."""
        return [encoder.token_map(encoder.tokens(images), images)]

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """One map (B, C, h, w) to logits (B, classes, h, w)."""
        return cast(Tensor, self.classifier(maps[0]))

    def loss(self, maps: Sequence[Tensor], target: Tensor) -> dict[str, Tensor]:
        """Cross entropy against train ids (B, H, W), over the pixels that count."""
        return {"loss": segmentation_loss(self(maps), target)}


class SegformerDecoder(nn.Module):
    """SegFormer's all-MLP head (Xie et al. 2021) from transformers, without its dropout, which would make resuming inexact."""

    def __init__(self, map_dims: Sequence[int], classes: int, width: int, feature_norm: FeatureNorm) -> None:
        super().__init__()
        self.feature_norm = feature_norm
        # Imported here: transformers takes seconds to load and the linear decoder does not need it.
        from transformers import SegformerConfig
        from transformers.models.segformer.modeling_segformer import SegformerDecodeHead

        config = SegformerConfig(
            hidden_sizes=list(map_dims),
            num_encoder_blocks=len(map_dims),
            decoder_hidden_size=width,
            classifier_dropout_prob=0.0,
        )
        config.num_labels = classes
        self.head = SegformerDecodeHead(config)

    def features(self, encoder: Encoder, images: Tensor) -> list[Tensor]:
        """The encoder's four feature maps."""
        return encoder.feature_maps(images, self.feature_norm)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Maps (B, C_i, H_i, W_i) to logits (B, classes, H_0, W_0)."""
        return cast(Tensor, self.head(tuple(maps)))

    def loss(self, maps: Sequence[Tensor], target: Tensor) -> dict[str, Tensor]:
        """Cross entropy against train ids (B, H, W), over the pixels that count."""
        return {"loss": segmentation_loss(self(maps), target)}


Decoder = LinearDecoder | SegformerDecoder | Mask2FormerDecoder


def build_decoder(
    name: str,
    encoder: Encoder,
    classes: int,
    width: int,
    mask2former: Mask2FormerSettings = PUBLISHED_MASK2FORMER,
    feature_norm: FeatureNorm = "none",
) -> Decoder:
    """A decoder for an encoder, by name, with random weights from torch's global random state.

    Args:
        feature_norm: of the feature maps that the decoder looks at; the linear one looks at the patch tokens instead.

    Raises:
        SettingsError: there is no decoder of that name, or it cannot have that width.
    """
    if name == "linear":
        return LinearDecoder(encoder.dim, classes)
    if name == "segformer":
        return SegformerDecoder(encoder.map_dims, classes, width, feature_norm)
    if name == "mask2former":
        return Mask2FormerDecoder(encoder.map_dims, classes, width, mask2former, feature_norm)
    raise SettingsError(f"decoder: unknown decoder '{name}'; allowed: {', '.join(DECODERS)}")


def segmentation_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Cross entropy of logits (B, K, h, w), resampled to the target (B, H, W), over the pixels that count.

    In single precision, whatever the network computed in: it is a sum over very many pixels.
    """
    full = functional.interpolate(logits.float(), size=target.shape[-2:], mode="bilinear", align_corners=False)
    counted = (target != IGNORE).sum().clamp_min(1)
    return functional.cross_entropy(full, target, ignore_index=IGNORE, reduction="sum") / counted
