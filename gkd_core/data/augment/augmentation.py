"""Training views of images without labels, every draw a pure function of the view's keys."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image
from timm.data.auto_augment import RandAugment, posterize
from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.data.transforms_factory import create_transform
from torch import Tensor
from torchvision.transforms import Compose

from gkd_core.data.augment.transforms import Size, adjust_colors, random_resized_crop
from gkd_core.seeding import generator, seeded_globals

RAND_AUGMENT = "rand-m9-mstd0.5-inc1"
ERASING_PROBABILITY = 0.25
Keys = tuple[int | str, ...]


class Augmentation(Protocol):
    """From images, uint8 (H, W, 3), and the keys of a view of each to the views (B, 3, h, w) in 0..1."""

    def __call__(self, images: Sequence[np.ndarray], keys: Sequence[Keys]) -> Tensor: ...


class ReleasedAugmentation:
    """timm's training transform as the release calls it: bicubic random resized crop, flip, RandAugment, random erasing.

    The release also passes a colour jitter, which timm leaves out where RandAugment is on; so it is left out here too.
    Erased pixels, and they alone, may lie outside 0..1: they are drawn from a standard normal on normalised images.
    """

    def __init__(self, size: Size, scale: tuple[float, float], color_jitter: float) -> None:
        self._transform: Compose = create_transform(
            (3, *size),
            is_training=True,
            scale=scale,
            color_jitter=color_jitter,
            auto_augment=RAND_AUGMENT,
            interpolation="bicubic",
            re_prob=ERASING_PROBABILITY,
            re_mode="pixel",
        )
        _mend_posterize(self._transform)
        # Encoders normalise by themselves; random erasing needs it done before, so it is undone after.
        self._mean = torch.tensor(IMAGENET_DEFAULT_MEAN).view(1, 3, 1, 1)
        self._std = torch.tensor(IMAGENET_DEFAULT_STD).view(1, 3, 1, 1)

    def __call__(self, images: Sequence[np.ndarray], keys: Sequence[Keys]) -> Tensor:
        normalised = torch.stack([self._view(image, key) for image, key in zip(images, keys, strict=True)])
        return torch.addcmul(self._mean, normalised, self._std)

    def _view(self, image: np.ndarray, keys: Keys) -> Tensor:
        with seeded_globals(*keys):
            return self._transform(Image.fromarray(image))


def _mend_posterize(transform: Compose) -> None:
    """Let RandAugment's strongest posterize, which keeps 0 bits, give a black image: Pillow did so, and now refuses."""
    for step in transform.transforms:
        for operation in step.ops if isinstance(step, RandAugment) else ():
            if operation.aug_fn is posterize:
                operation.aug_fn = _posterize


def _posterize(image: Image.Image, bits: int, **options: Any) -> Image.Image:
    return image.point(lambda value: 0) if bits == 0 else posterize(image, bits, **options)


class LightAugmentation:
    """Random resized crop, flip, and a jitter of brightness, contrast and saturation."""

    def __init__(self, size: Size, scale: tuple[float, float], color_jitter: float) -> None:
        self._size, self._scale, self._color_jitter = size, scale, color_jitter

    def __call__(self, images: Sequence[np.ndarray], keys: Sequence[Keys]) -> Tensor:
        draws = [generator(*key) for key in keys]
        crops = [random_resized_crop(image, self._size, self._scale, draw) for image, draw in zip(images, draws, strict=True)]
        if self._color_jitter == 0:
            return torch.stack(crops)
        factors = torch.stack([1 + self._color_jitter * (2 * torch.rand(3, generator=draw) - 1) for draw in draws], dim=1)
        return adjust_colors(torch.stack(crops), factors)
