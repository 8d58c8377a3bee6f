"""A program held against PyTorch on real images: by how much its logits differ, and in how many pixels it names another class."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from gkd_core.errors import GkdError
from gkd_core.export.wanted import Precision, Size, Sizes, Wanted
from gkd_core.models.segmentor import Segmentor as Network
from gkd_core.predict.pictures import Picture

MOST_IMAGES = 8
BATCHES = (1, 3)  # images at once, in turn; neither is how many the program was made with


@dataclass(frozen=True)
class Bound:
    """How far a program may be from PyTorch in single precision.

    Attributes:
        difference: of a logit, in parts of the largest one.
        agreement: share of pixels that get the same class.
    """

    difference: float
    agreement: float


BOUNDS: Mapping[Precision, Bound] = {
    "fp32": Bound(difference=1e-3, agreement=0.999),  # sums in another order
    "fp16": Bound(difference=3e-2, agreement=0.98),  # 11 bits a number
    "int8": Bound(difference=0.25, agreement=0.95),
}


@dataclass(frozen=True)
class Figures:
    """What was found. Differences are of logits; None where the program gives classes alone."""

    images: int
    pixels: int
    agreement: float
    difference: float | None
    largest: float

    @property
    def recorded(self) -> dict[str, float]:
        """As a manifest has them."""
        found = {"images": float(self.images), "pixels": float(self.pixels), "argmax-agreement": self.agreement}
        if self.difference is None:
            return found
        return found | {"largest-difference": self.difference, "largest-logit": self.largest}

    @property
    def line(self) -> str:
        """As a person reads them."""
        classes = f"{100 * self.agreement:.4f} % of pixels get the same class, on {self.images} images"
        if self.difference is None:
            return classes
        return f"logits differ by {self.difference:.2g} at most (largest: {self.largest:.3g}), {classes}"

    def check(self, bound: Bound) -> None:
        """Raise `GkdError` where the program is beyond the bound."""
        allowed = bound.difference * self.largest
        near = self.difference is None or self.difference <= allowed  # false of a number that is none, too
        if not near or not self.agreement >= bound.agreement:
            limits = f"at most {allowed:.2g} and " if self.difference is not None else ""
            raise GkdError(
                f"the program is not what PyTorch computes: {self.line}; expected {limits}at least {100 * bound.agreement:g} %. "
                "Nothing was written; try without --half or --int8, or another --format"
            )


@torch.inference_mode()
def compare(
    program: Callable[[Tensor], Tensor], network: Network, pictures: Sequence[Picture], wanted: Wanted, sizes: Sizes
) -> Figures:
    """The figures of a program, over images in every size that it is made for and in batches of several lengths.

    Args:
        network: in single precision.
        pictures: real images, at least one, at the size at which the student sees images.

    Raises:
        GkdError: the program cannot be run, or gives another shape.
    """
    pixels, equal, difference, largest = 0, 0, 0.0, 0.0
    for shown in _batches(pictures, sizes):
        floats = as_floats(shown)
        expected = network(floats)
        classes = expected.argmax(dim=1)
        if wanted.takes == "classes-of-bytes":
            given = _of_shape(program(shown), classes)
        else:
            logits = _of_shape(program(floats), expected)
            difference = _larger(difference, float((logits - expected).abs().max()))
            given = logits.argmax(dim=1)
        largest = max(largest, float(expected.abs().max()))
        equal += int((given == classes).sum())
        pixels += classes.numel()
    has_logits = wanted.takes == "logits-of-floats"
    return Figures(min(len(pictures), MOST_IMAGES), pixels, equal / pixels, difference if has_logits else None, largest)


def as_floats(images: Tensor) -> Tensor:
    """Images (B, H, W, 3), uint8, as (B, 3, H, W), float32 in 0..1."""
    return (images.float() / 255).permute(0, 3, 1, 2).contiguous()


def as_bytes(images: Tensor) -> Tensor:
    """Images (B, 3, H, W), float32 in 0..1, as (B, H, W, 3), uint8, the nearest level."""
    return (images.clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).contiguous()


def calibration(pictures: Sequence[Picture], wanted: Wanted, sizes: Sizes) -> Iterator[Tensor]:
    """The images one by one at the traced size, as the program takes them."""
    for picture in pictures:
        shown = window_of(picture, sizes.traced).unsqueeze(0)
        yield shown if wanted.takes == "classes-of-bytes" else as_floats(shown)


def _of_shape(given: Tensor, expected: Tensor) -> Tensor:
    if given.shape != expected.shape:
        raise GkdError(f"the program gives {tuple(given.shape)} where PyTorch gives {tuple(expected.shape)}; nothing was written")
    return given


def _larger(left: float, right: float) -> float:
    """The larger of two numbers; none where one is none."""
    return math.nan if math.isnan(left) or math.isnan(right) else max(left, right)


def _batches(pictures: Sequence[Picture], sizes: Sizes) -> Iterator[Tensor]:
    """Images (B, H, W, 3), uint8: all at the traced size, the first few at each other one."""
    chosen = pictures[:MOST_IMAGES]
    yield from _batches_of(chosen, sizes.traced)
    for size in sizes.others:
        yield from _batches_of(chosen[: max(BATCHES)], size)


def _batches_of(pictures: Sequence[Picture], size: Size) -> Iterator[Tensor]:
    first, turn = 0, 0
    while first < len(pictures):
        count = BATCHES[turn % len(BATCHES)]
        yield torch.stack([window_of(picture, size) for picture in pictures[first : first + count]])
        first, turn = first + count, turn + 1
    if len(pictures) == 1:  # another length of batch all the same
        yield torch.stack([window_of(pictures[0], size)] * BATCHES[1])


def window_of(picture: Picture, size: Size) -> Tensor:
    """The middle of an image, (height, width, 3), uint8; black pixels below and to the right where it is smaller."""
    height, width = size
    top, left = max(0, picture.height - height) // 2, max(0, picture.width - width) // 2
    part = torch.from_numpy(picture.as_bytes()[top : top + height, left : left + width].copy())
    return functional.pad(part, (0, 0, 0, width - part.shape[1], 0, height - part.shape[0]))
