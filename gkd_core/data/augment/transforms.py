"""Random crops, flips and colours of training images, all drawn from a generator that the caller seeds."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from gkd_core.data.catalog.taxonomy import IGNORE

Size = tuple[int, int]
CROP_TRIES = 10


def to_float(image: np.ndarray) -> Tensor:
    """uint8 (H, W, 3) to float (3, H, W) in 0..1."""
    return torch.from_numpy(image).permute(2, 0, 1).float().div_(255)


def resized(image: Tensor, size: Size) -> Tensor:
    """(C, H, W) to (C, *size), bilinear; unchanged where the size is right already."""
    if tuple(image.shape[-2:]) == size:
        return image
    return functional.interpolate(image.unsqueeze(0), size=size, mode="bilinear", align_corners=False)[0]


def middle(image: Tensor, size: Size) -> Tensor:
    """The middle (C, *size) of an image (C, H, W), at the least scale at which it covers that size."""
    height, width = image.shape[-2:]
    scale = max(size[0] / height, size[1] / width)
    covering = (max(size[0], round(height * scale)), max(size[1], round(width * scale)))
    if covering != (height, width):
        image = functional.interpolate(image.unsqueeze(0), size=covering, mode="bilinear", align_corners=False, antialias=True)[
            0
        ].clamp(0, 1)
    top, left = (covering[0] - size[0]) // 2, (covering[1] - size[1]) // 2
    return image[:, top : top + size[0], left : left + size[1]]


def random_resized_crop(image: np.ndarray, size: Size, scale: tuple[float, float], generator: torch.Generator) -> Tensor:
    """A random part of an image, as (3, *size) in 0..1.

    Its area is a share of the image within `scale`, its shape is near that of `size`, and half the time it is flipped.
    """
    height, width = image.shape[:2]
    area = height * width * _uniform(scale[0], scale[1], generator)
    ratio = size[1] / size[0] * math.exp(_uniform(math.log(3 / 4), math.log(4 / 3), generator))
    crop_height = min(height, max(1, round(math.sqrt(area / ratio))))
    crop_width = min(width, max(1, round(math.sqrt(area * ratio))))
    top = _integer(height - crop_height + 1, generator)
    left = _integer(width - crop_width + 1, generator)
    crop = torch.from_numpy(image[top : top + crop_height, left : left + crop_width]).permute(2, 0, 1)
    # On bytes, as image libraries resample: three times as fast as on floats.
    scaled = functional.interpolate(crop.unsqueeze(0), size=size, mode="bicubic", align_corners=False, antialias=True)[0]
    scaled = scaled.float().div_(255)
    return scaled.flip(-1) if _integer(2, generator) else scaled


def labelled_crop(
    image: np.ndarray,
    label: np.ndarray,
    size: Size,
    resize_range: tuple[float, float],
    cat_max_ratio: float,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """A crop (3, *size) in 0..1 and its train ids (*size, int64): random scale, then a crop that no class fills beyond
    `cat_max_ratio` if ten tries find one, then a flip half the time. Pixels beyond the image are black and ignored."""
    scaled, ids = _rescaled(image, label, resize_range, generator)
    return _part(*padded(scaled, ids, size, scaled.new_zeros(3)), size, cat_max_ratio, generator)


def unpadded_crop(
    image: np.ndarray,
    label: np.ndarray,
    size: Size,
    resize_range: tuple[float, float],
    cat_max_ratio: float,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """`labelled_crop` of at most that size: a side that the scaled image does not fill is as long as the image's."""
    scaled, ids = _rescaled(image, label, resize_range, generator)
    within = (min(size[0], ids.shape[0]), min(size[1], ids.shape[1]))
    return _part(scaled, ids, within, cat_max_ratio, generator)


def padded(image: Tensor, ids: Tensor, size: Size, fill: Tensor) -> tuple[Tensor, Tensor]:
    """Image (3, h, w) and train ids (h, w) made at least as large as `size` by ignored pixels of the colour `fill` (3,)."""
    height, width = ids.shape
    below, right = max(0, size[0] - height), max(0, size[1] - width)
    if not below and not right:
        return image, ids
    filled = fill[:, None, None].expand(3, height + below, width + right).clone()
    filled[:, :height, :width] = image
    return filled, functional.pad(ids, (0, right, 0, below), value=IGNORE)


def _rescaled(
    image: np.ndarray, label: np.ndarray, resize_range: tuple[float, float], generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    factor = _uniform(resize_range[0], resize_range[1], generator)
    height, width = max(1, round(image.shape[0] * factor)), max(1, round(image.shape[1] * factor))
    scaled = functional.interpolate(to_float(image).unsqueeze(0), size=(height, width), mode="bilinear", align_corners=False)[0]
    ids = functional.interpolate(torch.from_numpy(label)[None, None].float(), size=(height, width), mode="nearest-exact")[
        0, 0
    ].long()
    return scaled, ids


def _part(scaled: Tensor, ids: Tensor, size: Size, cat_max_ratio: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """A part of that size, in which no class fills too much if tries find one, flipped half the time."""
    top, left = _varied_corner(ids, size, cat_max_ratio, generator)
    crop, target = scaled[:, top : top + size[0], left : left + size[1]], ids[top : top + size[0], left : left + size[1]]
    return (crop.flip(-1), target.flip(-1)) if _integer(2, generator) else (crop, target)


def jitter_colors(images: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Random brightness, contrast and saturation of each image of a batch (B, 3, H, W) in 0..1."""
    if strength == 0:
        return images
    return adjust_colors(images, 1 + strength * (2 * torch.rand(3, images.shape[0], generator=generator) - 1))


def adjust_colors(images: Tensor, factors: Tensor) -> Tensor:
    """Images (B, 3, H, W) in 0..1 with the brightness, contrast and saturation of `factors` (3, B); 1 changes nothing."""
    brightness, contrast, saturation = factors[:, :, None, None, None].unbind(0)
    # Brightness and contrast together are one line a·x + b; saturation then moves each pixel away from its grey.
    offset = images.mean(dim=(1, 2, 3), keepdim=True) * brightness * (1 - contrast)
    contrasted = torch.addcmul(offset, images, brightness * contrast)
    red, green, blue = contrasted.unbind(1)
    grey = ((red + green).add_(blue)).div_(3).unsqueeze(1)
    return torch.lerp(grey, contrasted, saturation).clamp_(0, 1)


def _varied_corner(ids: Tensor, size: Size, cat_max_ratio: float, generator: torch.Generator) -> Size:
    top = left = 0
    for _ in range(CROP_TRIES):
        top = _integer(ids.shape[0] - size[0] + 1, generator)
        left = _integer(ids.shape[1] - size[1] + 1, generator)
        crop = ids[top : top + size[0], left : left + size[1]]
        counts = torch.bincount(crop[crop != IGNORE], minlength=1)
        if int(counts.max()) < cat_max_ratio * max(1, int(counts.sum())):
            break
    return top, left


def _uniform(low: float, high: float, generator: torch.Generator) -> float:
    return low + (high - low) * torch.rand((), generator=generator).item()


def _integer(bound: int, generator: torch.Generator) -> int:
    return int(torch.randint(bound, (), generator=generator))
