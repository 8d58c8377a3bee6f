"""Mask2Former on an encoder's feature maps, through transformers, without its backbone."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from gkd_core.errors import SettingsError
from gkd_core.models.encoder import Encoder
from gkd_core.models.mask2former_loss import Prediction, set_loss
from gkd_core.settings import FeatureNorm, Mask2FormerSettings

NORM_GROUPS = 32  # channels are normalised in as many groups
MAP_STRIDE = 4  # of the finest map, and so of the masks


class Mask2FormerDecoder(nn.Module):
    """Pixel decoder (deformable attention over the three coarse maps, then up to stride 4) and masked-attention decoder.

    Initialised by the model's own rules: built on its own, `level_embed` would be uninitialised memory and the deformable
    attention would look at one place only.

    Args:
        map_dims: channels of the encoder's four maps, fine to coarse.
        classes: classes of the task; 'no object' comes on top.
        width: channels inside.
        feature_norm: of the maps that it asks the encoder for.

    Raises:
        SettingsError: the width does not divide into heads, or into groups of channels that can be normalised.
    """

    def __init__(
        self, map_dims: Sequence[int], classes: int, width: int, settings: Mask2FormerSettings, feature_norm: FeatureNorm
    ) -> None:
        super().__init__()
        from transformers import Mask2FormerConfig
        from transformers.models.mask2former.modeling_mask2former import (
            Mask2FormerPixelDecoder,
            Mask2FormerPreTrainedModel,
            Mask2FormerTransformerModule,
        )

        if width < 2 * NORM_GROUPS or width % NORM_GROUPS or width % settings.heads:
            raise SettingsError(
                f"decoder_width: {width} channels do not make {NORM_GROUPS} groups of two or more and {settings.heads} heads; "
                f"mask2former takes multiples of {NORM_GROUPS} from {2 * NORM_GROUPS} on (published: 256)"
            )
        config = Mask2FormerConfig(
            feature_size=width,
            mask_feature_size=width,
            hidden_dim=width,
            num_queries=settings.queries,
            num_attention_heads=settings.heads,
            encoder_layers=settings.pixel_layers,
            encoder_feedforward_dim=settings.pixel_feedforward,
            decoder_layers=settings.decoder_layers + 1,  # transformers counts the queries' first guess as a layer
            dim_feedforward=settings.feedforward,
        )
        config.num_labels = classes
        self.settings = settings
        self.feature_norm = feature_norm
        self.pixel_decoder = Mask2FormerPixelDecoder(config, feature_channels=list(map_dims))
        self.transformer = Mask2FormerTransformerModule(in_features=width, config=config)
        self.classifier = nn.Linear(width, classes + 1)
        self.apply(Mask2FormerPreTrainedModel(config)._init_weights)

    def features(self, encoder: Encoder, images: Tensor) -> list[Tensor]:
        """The encoder's four feature maps, strides 4 to 32: a plain ViT has its pyramid made first."""
        return encoder.feature_maps(images, self.feature_norm)

    def predict(self, maps: Sequence[Tensor]) -> list[Prediction]:
        """Predictions of the queries' first guess and of every layer after it, the last layer last; masks at stride 4."""
        pixels = self.pixel_decoder(list(maps))
        decoded = self.transformer(multi_scale_features=pixels.multi_scale_features, mask_features=pixels.mask_features)
        states = (self.classifier(state.transpose(0, 1)) for state in decoded.intermediate_hidden_states)
        return [Prediction(*both) for both in zip(states, decoded.masks_queries_logits, strict=True)]

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Maps (B, C_i, H_i, W_i) to semantic logits (B, classes, 4 H_0, 4 W_0), each 0 or more.

        Masks are resampled before they become probabilities, as published.
        """
        last = self.predict(maps)[-1]
        masks = functional.interpolate(last.masks, scale_factor=float(MAP_STRIDE), mode="bilinear", align_corners=False)
        return semantic_logits(last.classes, masks)

    def loss(self, maps: Sequence[Tensor], target: Tensor) -> dict[str, Tensor]:
        """`set_loss` of maps (B, C_i, H_i, W_i) against train ids (B, H, W); its points come from torch's random state."""
        return set_loss(self.predict(maps), target, self.settings)


def semantic_logits(classes: Tensor, masks: Tensor) -> Tensor:
    """Class logits (B, Q, K + 1) and mask logits (B, Q, h, w) to a score of each class in each pixel (B, K, h, w).

    These are what windows and views average: sums over queries of class probability × mask probability.
    """
    return torch.einsum("bqk,bqhw->bkhw", classes.softmax(-1)[..., :-1], masks.sigmoid())
