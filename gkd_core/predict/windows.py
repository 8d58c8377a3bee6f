"""Large pictures by strips: the logits of sliding windows a few rows at a time, in memory that does not grow with the height.

A strip is asked of the one below it, from the answer down to the file: what is shown is resized picture rows, their logits are
summed over windows in a band that moves down, and the answer is resized from that. Each keeps only what is still needed. The
windows are those of `sliding_logits`, in its order and its passes, and so are the sums: without resizing, bit for bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol as Interface

import torch
from torch import Tensor, nn
from torch.nn import functional

from gkd_core.evaluate.inference import precision_of, scaled_size, window_corners, window_size
from gkd_core.predict.manifest import View
from gkd_core.settings import EvaluateSettings


class Rows(Interface):
    """Something of a height and a width, in pixels, that gives its rows from top to bottom."""

    @property
    def height(self) -> int: ...

    @property
    def width(self) -> int: ...

    def rows(self, top: int, bottom: int) -> Tensor:
        """Rows (C, bottom - top, width). `top` never decreases from one call to the next."""
        ...


class OnDevice:
    """Rows on a device."""

    def __init__(self, source: Rows, device: torch.device) -> None:
        self._source, self._device = source, device
        self.height, self.width = source.height, source.width

    def rows(self, top: int, bottom: int) -> Tensor:
        return self._source.rows(top, bottom).to(self._device)


class Mirrored:
    """Rows from right to left."""

    def __init__(self, source: Rows) -> None:
        self._source = source
        self.height, self.width = source.height, source.width

    def rows(self, top: int, bottom: int) -> Tensor:
        return self._source.rows(top, bottom).flip(-1)


class Mean:
    """The mean of several rows of one size, summed in their order."""

    def __init__(self, sources: Sequence[Rows]) -> None:
        self._sources = sources
        self.height, self.width = sources[0].height, sources[0].width

    def rows(self, top: int, bottom: int) -> Tensor:
        total = self._sources[0].rows(top, bottom)
        for source in self._sources[1:]:
            total = total + source.rows(top, bottom)
        return total / len(self._sources)


class Resized:
    """Rows of a picture at another size, bilinear as `resized`: its columns by torch, its rows by the same rule."""

    def __init__(self, source: Rows, size: tuple[int, int]) -> None:
        self._source = source
        self.height, self.width = size

    def rows(self, top: int, bottom: int) -> Tensor:
        if (self.height, self.width) == (self._source.height, self._source.width):
            return self._source.rows(top, bottom)
        factor = torch.tensor(self._source.height, dtype=torch.float32) / self.height
        places = ((torch.arange(top, bottom, dtype=torch.float32) + 0.5) * factor - 0.5).clamp_min(0)
        above = places.floor().long().clamp_max(self._source.height - 1)
        below = (above + 1).clamp_max(self._source.height - 1)
        first = int(above[0])
        block = self._columns(self._source.rows(first, int(below[-1]) + 1))
        share = (places - above).to(block.device)[:, None]
        return block[:, (above - first).to(block.device)] * (1 - share) + block[:, (below - first).to(block.device)] * share

    def _columns(self, block: Tensor) -> Tensor:
        if self.width == self._source.width:
            return block
        size = (block.shape[1], self.width)
        return functional.interpolate(block.unsqueeze(0), size=size, mode="bilinear", align_corners=False)[0]


class Windowed:
    """Logits of a picture by `sliding_logits`, in a band of rows that moves down as they are asked for."""

    def __init__(self, model: nn.Module, source: Rows, settings: EvaluateSettings) -> None:
        self._model, self._source, self._precision = model, source, settings.precision
        self.height, self.width = source.height, source.width
        self._window = window_size(self.height, self.width, settings.window)
        self._bottom, self._right = max(self.height, self._window[0]), max(self.width, self._window[1])
        corners = window_corners(self._bottom, self._right, self._window, settings.stride)
        size = settings.batch_size
        self._passes = [corners[first : first + size] for first in range(0, len(corners), size)]
        self._next = 0  # pass
        self._top = 0  # first row of the band
        self._total: Tensor | None = None
        self._count = torch.zeros(0)
        self._strip: tuple[int, Tensor] | None = None

    def rows(self, top: int, bottom: int) -> Tensor:
        while self._done < bottom:
            self._forget_above(min(top, self._done))
            self._pass()
        self._forget_above(top)
        assert self._total is not None  # a pass was made
        band = slice(top - self._top, bottom - self._top)
        return (self._total[:, band] / self._count[band])[..., : self.width]

    @property
    def _done(self) -> int:
        """Rows above this one have seen all of their windows."""
        return self._passes[self._next][0][0] if self._next < len(self._passes) else self._bottom

    def _pass(self) -> None:
        part = self._passes[self._next]
        rows, columns = self._window
        seen = torch.stack([self._strip_at(top)[:, :, left : left + columns] for top, left in part])
        with precision_of(seen.device, self._precision):
            logits = self._model(seen)
        self._reserve(logits.shape[1], part[-1][0] + rows - self._top, seen)
        assert self._total is not None  # reserved
        for (top, left), scores in zip(part, logits, strict=True):
            band = slice(top - self._top, top - self._top + rows)
            self._total[:, band, left : left + columns] += scores
            self._count[band, left : left + columns] += 1
        self._next += 1

    def _strip_at(self, top: int) -> Tensor:
        """What the windows that begin at a row see of the picture, black where it has ended."""
        if self._strip is None or self._strip[0] != top:
            bottom = min(top + self._window[0], self.height)
            strip = self._source.rows(top, bottom)
            self._strip = top, functional.pad(strip, (0, self._right - self.width, 0, self._window[0] - (bottom - top)))
        return self._strip[1]

    def _reserve(self, classes: int, rows: int, like: Tensor) -> None:
        """Make the band at least so high."""
        if self._total is None:
            self._total = like.new_zeros(classes, rows, self._right)
            self._count = like.new_zeros(rows, self._right)
        lacking = rows - self._count.shape[0]
        if lacking > 0:
            self._total = torch.cat([self._total, like.new_zeros(classes, lacking, self._right)], dim=1)
            self._count = torch.cat([self._count, like.new_zeros(lacking, self._right)])

    def _forget_above(self, top: int) -> None:
        """Have the band begin at a row."""
        gone, self._top = top - self._top, top
        if not gone or self._total is None:
            return
        height = self._count.shape[0]
        kept = max(0, height - gone)
        for start in range(0, kept, gone):  # piece by piece, as the places overlap and a copy would need room
            end = min(start + gone, kept)
            self._total[:, start:end] = self._total[:, start + gone : end + gone]
            self._count[start:end] = self._count[start + gone : end + gone]
        self._total[:, kept:] = 0
        self._count[kept:] = 0


def logit_rows(
    model: nn.Module, picture: Rows, view: View, settings: EvaluateSettings, device: torch.device, size: tuple[int, int]
) -> Rows:
    """The logits of a picture, row by row, resized to `size`: as `image_logits` of what the protocol shows.

    Args:
        picture: after the first step of the protocol, where there is one.
    """
    here = OnDevice(picture, device)
    shown = _shown_size(picture, view)
    views: list[Rows] = []
    for scale in settings.scales:
        scaled = Resized(Resized(here, shown), scaled_size(*shown, scale))
        logits: Rows = Windowed(model, scaled, settings)
        if settings.flip:
            logits = Mean([logits, Mirrored(Windowed(model, Mirrored(scaled), settings))])
        views.append(Resized(logits, shown))
    return Resized(views[0] if len(views) == 1 else Mean(views), size)


def _shown_size(picture: Rows, view: View) -> tuple[int, int]:
    return view.protocol.model_copy(update={"scale": 1.0}).input_size(picture.height, picture.width)
