"""What kind of program is wanted of a student, and which images it takes."""

from __future__ import annotations

import math
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, model_validator

from gkd_core.errors import SettingsError
from gkd_core.evaluate.inference import SIDE_MULTIPLE
from gkd_core.models.any_size import objection_to_any_size
from gkd_core.models.mask2former import Mask2FormerDecoder
from gkd_core.models.segmentor import Segmentor as Network
from gkd_core.predict.manifest import View

ProgramFormat = Literal["onnx", "pt2"]
Precision = Literal["fp32", "fp16", "int8"]
Takes = Literal["logits-of-floats", "classes-of-bytes"]
Size = tuple[int, int]

LARGEST_SIDE = 2**14
ONE_SIZE = "the Mask2Former of transformers lays its attention over three maps out in Python, where the program is made"


class Wanted(BaseModel):
    """A program that is wanted.

    Attributes:
        takes: logits-of-floats: float32 (B, 3, H, W) in 0..1 to float32 (B, K, H, W); classes-of-bytes: uint8 (B, H, W, 3) to
            train ids, uint8 (B, H, W). Normalisation is inside, either way.
        precision: fp16: weights and sums in 16 bits; int8: products with weights in 8, of ONNX alone. What goes in and comes out
            stays as `takes` says.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: ProgramFormat
    takes: Takes = "logits-of-floats"
    precision: Precision = "fp32"

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.precision == "int8" and self.format != "onnx":
            raise SettingsError(
                f"--int8: onnxruntime quantises ONNX files alone, not {self.format}; give --format onnx, or --half"
            )
        return self

    @property
    def name(self) -> str:
        """What its file is called in a bundle."""
        kind = ("-classes" if self.takes == "classes-of-bytes" else "") + (
            "" if self.precision == "fp32" else f"-{self.precision}"
        )
        return f"student{kind}.{self.format}"


class Sizes(BaseModel):
    """The images that a program takes, (height, width) in pixels.

    Attributes:
        traced: the size that it is made with; where `fixed_because` says why, the only one that it takes.
        multiple: both sides of any other size are multiples of it,
        smallest: and as long at least.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    traced: Size
    multiple: int
    smallest: int
    fixed_because: str | None = None

    @classmethod
    def of(cls, network: Network, view: View, asked: Size | None = None) -> Self:
        """The sizes of a student's program: the windows through which it sees images, and where it can, any other.

        Raises:
            SettingsError: the size that is asked for, or the window, is none that the student can see.
        """
        multiple = math.lcm(network.encoder.token_stride, SIDE_MULTIPLE)
        size = asked or view.window
        # A side of one multiple leaves one value on the coarsest map, which a program would take for a constant.
        fixed = ONE_SIZE if isinstance(network.decoder, Mask2FormerDecoder) else objection_to_any_size(network.encoder)
        sizes = cls(traced=size, multiple=multiple, smallest=2 * multiple, fixed_because=fixed)
        if any(side % multiple or not sizes.smallest <= side <= LARGEST_SIDE for side in size):
            raise SettingsError(
                f"--size: {size[0]}x{size[1]} pixels; this student's programs take sides that are multiples of {multiple}, "
                f"from {sizes.smallest} to {LARGEST_SIDE}; give such a size, HEIGHTxWIDTH"
            )
        return sizes

    @property
    def others(self) -> tuple[Size, ...]:
        """Sizes beside the traced one that a program is tried on."""
        if self.fixed_because is not None:
            return ()
        height, width = self.traced
        return ((width + self.multiple, height), (self.smallest, self.smallest))

    def holding(self, height: int, width: int) -> Size:
        """The smallest size of these that holds an image of this one.

        Raises:
            SettingsError: there is one size alone, and it does not.
        """
        if self.fixed_because is None:
            return self._rounded(height), self._rounded(width)
        if height > self.traced[0] or width > self.traced[1]:
            raise SettingsError(
                f"--size: {self.traced[0]}x{self.traced[1]} pixels alone ({self.fixed_because}); the score's windows of "
                f"{height}x{width} do not fit; give --size {height}x{width} or more"
            )
        return self.traced

    def _rounded(self, side: int) -> int:
        return max(self.smallest, -(-side // self.multiple) * self.multiple)


def read_size(text: str) -> Size:
    """HEIGHTxWIDTH as a size.

    Raises:
        SettingsError: it is none.
    """
    parts = text.lower().split("x")
    if len(parts) != 2 or not all(part.isascii() and part.isdigit() and len(part) <= 6 for part in parts):
        raise SettingsError(f"--size: {text[:40]!r} is no size; give HEIGHTxWIDTH in pixels, such as 512x1024")
    return int(parts[0]), int(parts[1])
