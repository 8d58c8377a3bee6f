"""The one interface behind which every backbone stands, teacher or student, ViT or CNN."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor, nn


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
    """

    dim: int
    map_dims: tuple[int, int, int, int]
    token_stride: int
    mean: Tensor
    std: Tensor

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)

    def normalise(self, images: Tensor) -> Tensor:
        """Images in 0..1 to the backbone's own range."""
        return (images - self.mean) / self.std

    @abstractmethod
    def tokens(self, images: Tensor, mask: Tensor | None = None) -> Tokens:
        """Tokens of the images; patches where `mask` (B, N, bool) is true are hidden from the encoder."""

    @abstractmethod
    def feature_maps(self, images: Tensor) -> list[Tensor]:
        """Four maps (B, C_i, H / s, W / s) at the strides s = 4, 8, 16, 32, fine to coarse."""

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of patch tokens for an image size in pixels."""
        return height // self.token_stride, width // self.token_stride

    def token_map(self, tokens: Tokens, images: Tensor) -> Tensor:
        """Patch tokens of the images as a map (B, C, rows, columns)."""
        return tokens.patches.transpose(1, 2).unflatten(2, self.grid(images.shape[-2], images.shape[-1]))
