"""Photometric distortion as mmsegmentation defines it, drawn from a generator that the caller seeds."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torchvision.transforms import functional

BRIGHTNESS = 32 / 255  # ± of the full range
CONTRAST = SATURATION = (0.5, 1.5)
HUE = 18 / 180  # ± of a full turn, which OpenCV counts as 180


def distort_colors(image: Tensor, generator: torch.Generator) -> Tensor:
    """Brightness, contrast, saturation and hue of an image (3, H, W) in 0..1, each changed half the time.

    Contrast comes before the colours or after them, at even odds. Values are cut to 0..1 after each change. Released: the
    same on 8-bit images, where each change also rounds.
    """
    contrast_first = _coin(generator)
    steps: list[Callable[[Tensor], Tensor]] = [_brightness(generator), _saturation(generator), _hue(generator)]
    steps.insert(1 if contrast_first else 3, _contrast(generator))
    for step in steps:
        image = step(image)
    return image


def _brightness(generator: torch.Generator) -> Callable[[Tensor], Tensor]:
    shift = _drawn(-BRIGHTNESS, BRIGHTNESS, 0.0, generator)
    return lambda image: (image + shift).clamp(0, 1)


def _contrast(generator: torch.Generator) -> Callable[[Tensor], Tensor]:
    """Values times a factor: black stays black."""
    factor = _drawn(*CONTRAST, 1.0, generator)
    return lambda image: (image * factor).clamp(0, 1)


def _saturation(generator: torch.Generator) -> Callable[[Tensor], Tensor]:
    """The S of HSV times a factor, at most 1; brightest channel and hue stay."""
    factor = _drawn(*SATURATION, 1.0, generator)

    def change(image: Tensor) -> Tensor:
        value, least = image.amax(dim=0, keepdim=True), image.amin(dim=0, keepdim=True)
        saturation = (value - least) / value.clamp_min(1e-6)
        capped = (saturation * factor).clamp_max(1.0) / saturation.clamp_min(1e-6)
        return torch.where(saturation > 0, value - (value - image) * capped, image).clamp(0, 1)

    return change


def _hue(generator: torch.Generator) -> Callable[[Tensor], Tensor]:
    turn = _drawn(-HUE, HUE, 0.0, generator)
    return lambda image: functional.adjust_hue(image, turn) if turn else image


def _drawn(low: float, high: float, still: float, generator: torch.Generator) -> float:
    """A number between the bounds, or half the time `still`, which changes nothing."""
    amount = low + (high - low) * torch.rand((), generator=generator).item()
    return amount if _coin(generator) else still


def _coin(generator: torch.Generator) -> bool:
    return bool(torch.randint(2, (), generator=generator))
