"""Feature pyramids of timm as encoders: convolutional networks, and whatever else gives maps at strides 4 to 32."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from timm.layers.format import Format
from timm.models._features import FeatureListNet
from torch import Tensor, nn
from torch.nn import functional

from gkd_core.errors import SettingsError
from gkd_core.models.encoder import PYRAMID_STRIDES, Encoder, Tokens
from gkd_core.settings import FeatureNorm

TOKEN_STRIDE = 16


class CNNEncoder(Encoder):
    """A feature pyramid whose maps, joined at stride 16, are the patch tokens; their mean is the cls token.

    Each joined map is normalised over its channels first: it has no final norm of its own, and one map of large values
    would otherwise drown the others in the distillation loss.
    """

    def __init__(
        self, backbone: FeatureListNet, token_strides: Sequence[int], mean: tuple[float, ...], std: tuple[float, ...]
    ) -> None:
        super().__init__(mean, std)
        self.backbone = backbone
        self.mask_pixel = nn.Parameter(torch.zeros(3))
        self.token_stride = TOKEN_STRIDE
        self.cls_is = "mean of patches"
        self._channels_last = getattr(backbone, "output_fmt", None) == Format.NHWC
        strides = list(backbone.feature_info.reduction())
        channels = list(backbone.feature_info.channels())
        self._pyramid = [_level(strides, stride) for stride in PYRAMID_STRIDES]
        self._joined = [_level(strides, stride) for stride in token_strides]
        first, second, third, fourth = (channels[level] for level in self._pyramid)
        self.map_dims = (first, second, third, fourth)
        self.dim = sum(channels[level] for level in self._joined)

    def tokens(self, images: Tensor, mask: Tensor | None = None) -> Tokens:
        rows, columns = self.grid(*images.shape[-2:])
        levels = self._levels(self._hide(self.normalise(images), mask, rows, columns))
        parts = []
        for index in self._joined:
            level = functional.interpolate(levels[index], size=(rows, columns), mode="bilinear", align_corners=False)
            flat = level.flatten(2).transpose(1, 2)
            parts.append(functional.layer_norm(flat, flat.shape[-1:]))
        patches = torch.cat(parts, dim=-1)
        return Tokens(patches.mean(dim=1), patches)

    def feature_maps(self, images: Tensor, norm: FeatureNorm = "none") -> list[Tensor]:
        levels = self._levels(self.normalise(images))
        return [levels[index] for index in self._pyramid]

    def _levels(self, images: Tensor) -> list[Tensor]:
        """All maps (B, C, h, w); Swin's come with the channels last."""
        levels: list[Tensor] = self.backbone(images)
        return [level.permute(0, 3, 1, 2) for level in levels] if self._channels_last else levels

    def _hide(self, images: Tensor, mask: Tensor | None, rows: int, columns: int) -> Tensor:
        """Put the learned mask pixel over hidden patches."""
        if mask is None:
            return images
        cells = mask.view(-1, 1, rows, columns).to(images.dtype)
        pixels = functional.interpolate(cells, size=images.shape[-2:], mode="nearest").bool()
        return torch.where(pixels, self.mask_pixel.view(1, 3, 1, 1).to(images.dtype), images)


def _level(strides: list[int], stride: int) -> int:
    if stride not in strides:
        raise SettingsError(
            f"token_strides: this architecture has no map of stride {stride}; it has {', '.join(map(str, strides))}"
        )
    return strides.index(stride)
