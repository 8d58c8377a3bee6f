"""An encoder and a decoder together: images to class logits."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from gkd_core.models.build import build_encoder
from gkd_core.models.decoders import PUBLISHED_MASK2FORMER, Decoder, LinearDecoder, build_decoder
from gkd_core.models.encoder import Encoder
from gkd_core.models.tensor_files import read_checked
from gkd_core.models.weights import load_into
from gkd_core.records import MANIFEST, SegmentorCheckpoint
from gkd_core.seeding import seed_of
from gkd_core.settings import FeatureNorm, Mask2FormerSettings


class Segmentor(nn.Module):
    """Images (B, 3, H, W) in 0..1 to logits (B, classes, H, W)."""

    def __init__(self, encoder: Encoder, decoder: Decoder) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder

    def forward(self, images: Tensor) -> Tensor:
        return self.logits(self.features(images), images)

    def features(self, images: Tensor) -> list[Tensor]:
        """The maps (B, C_i, h_i, w_i) of images that the decoder is given, fine to coarse."""
        return self.decoder.features(self.encoder, images)

    def logits(self, maps: Sequence[Tensor], images: Tensor) -> Tensor:
        """Logits (B, classes, H, W) of the maps of images (B, 3, H, W)."""
        return functional.interpolate(self.decoder(maps), size=images.shape[-2:], mode="bilinear", align_corners=False)

    @property
    def coarsest_dim(self) -> int:
        """Channels of the last, coarsest map."""
        return self.encoder.dim if isinstance(self.decoder, LinearDecoder) else self.encoder.map_dims[-1]


def build_segmentor(
    encoder: Encoder,
    decoder: str,
    classes: int,
    width: int,
    seed: int,
    mask2former: Mask2FormerSettings = PUBLISHED_MASK2FORMER,
    feature_norm: FeatureNorm = "none",
) -> Segmentor:
    """Put a new decoder, whose weights are a pure function of `seed`, on an encoder; it sees maps as `feature_norm` says."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_of("decoder", seed))
        return Segmentor(encoder, build_decoder(decoder, encoder, classes, width, mask2former, feature_norm))


def recorded_segmentor(record: SegmentorCheckpoint) -> Segmentor:
    """The segmentor that a record describes, before its weights are read into it."""
    encoder = build_encoder(record.encoder.model_copy(update={"weights": "random"}), record.seed)
    return build_segmentor(
        encoder,
        record.decoder,
        len(record.classes),
        record.decoder_width,
        record.seed,
        record.mask2former,
        record.feature_norm,
    )


def load_segmentor(folder: Path) -> Segmentor:
    """Read a segmentor that stage two wrote, in evaluation mode.

    Raises:
        GkdError: the manifest is missing or of another version.
        WeightsError: the weights are missing, damaged, or not those that the manifest describes.
    """
    record = SegmentorCheckpoint.read(folder / MANIFEST)
    weights = folder / record.weights
    tensors = read_checked(weights, record.sha256, str(folder / MANIFEST))
    segmentor = recorded_segmentor(record)
    load_into(segmentor, tensors, str(weights))
    return segmentor.eval()
