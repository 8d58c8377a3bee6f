"""The one interface behind which every backbone stands, teacher or student, ViT or CNN."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from gkd_core.errors import SettingsError
from gkd_core.models.weights import Coverage
from gkd_core.settings import FeatureNorm

PYRAMID_STRIDES = (4, 8, 16, 32)
Channels = tuple[float, float, float]


class Tokens(NamedTuple):
    """An encoder's output in its final norm: `cls` (B, C) and `patches` (B, N, C), row by row over the grid."""

    cls: Tensor
    patches: Tensor


class Encoder(nn.Module, ABC):
    """A timm backbone that gives tokens and a pyramid of feature maps.

    Images are float (B, 3, H, W) in 0..1; normalisation with the backbone's own mean and deviation happens inside, so
    that a teacher and a student that were trained with different ones can look at the same view.

    Attributes:
        dim: channels C of the tokens.
        map_dims: channels of the four feature maps.
        token_stride: pixels between two patch tokens, along either side.
        cls_is: what the cls token is made from.
        coverage: how the weights that were loaded fit; None for random ones.
        normalisation: mean and standard deviation of each channel of images in 0..1, as files state them: to six digits.
    """

    backbone: Any
    dim: int
    map_dims: tuple[int, int, int, int]
    token_stride: int
    cls_is: Literal["class token", "mean of patches"]
    coverage: Coverage | None
    normalisation: tuple[Channels, Channels]
    mean: Tensor
    std: Tensor

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.coverage = None
        self.normalisation = _stated(mean), _stated(std)
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)

    def normalise(self, images: Tensor) -> Tensor:
        """Images in 0..1 to the backbone's own range."""
        return (images - self.mean) / self.std

    @abstractmethod
    def tokens(self, images: Tensor, mask: Tensor | None = None) -> Tokens:
        """Tokens of the images; patches where `mask` (B, N, bool) is true are hidden from the encoder."""

    @abstractmethod
    def feature_maps(self, images: Tensor, norm: FeatureNorm = "none") -> list[Tensor]:
        """Four maps (B, C_i, H / s, W / s) at the strides s = 4, 8, 16, 32, fine to coarse.

        A transformer's come from four of its blocks, as they are (as in the authors' release) or each in the final norm. A
        pyramid has no final norm: its maps are the same either way.
        """

    def enable_checkpointing(self) -> None:
        """Forget activations inside the backbone and compute them again in the backward pass: less memory, more time.

        Batch statistics of a CNN then move twice an update, as it is also in timm.

        Raises:
            SettingsError: timm's model cannot do so.
        """
        try:
            self.backbone.set_grad_checkpointing(True)
        except (AssertionError, AttributeError):
            raise SettingsError(
                f"activation checkpointing: timm has none for {type(self.backbone).__name__}; switch it off"
            ) from None

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of patch tokens for an image size in pixels."""
        return height // self.token_stride, width // self.token_stride

    def token_map(self, tokens: Tokens, images: Tensor) -> Tensor:
        """Patch tokens of the images as a map (B, C, rows, columns)."""
        return tokens.patches.transpose(1, 2).unflatten(2, self.grid(images.shape[-2], images.shape[-1]))


def _stated(values: tuple[float, ...]) -> Channels:
    red, green, blue = (round(value, 6) for value in values)
    return red, green, blue
