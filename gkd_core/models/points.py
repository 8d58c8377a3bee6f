"""Random points at which masks are compared, none of which sees an ignored pixel.

Mask2Former compares masks at points between pixels, where a bilinear sample looks at up to four of them. A point that
looks at an ignored pixel is moved to the centre of a pixel that counts, so that every point counts and nothing else does.
Points are (x, y) in 0..1 of an image; they are drawn from torch's global random state.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from gkd_core.data.catalog.taxonomy import IGNORE
from gkd_core.settings import Mask2FormerSettings

LEAST_WEIGHT = 1e-4  # of a bilinear sample; below lies only what rounding leaves


def sample_at(maps: Tensor, points: Tensor) -> Tensor:
    """Bilinear samples (N, C, P) of maps (N, C, h, w) at points (N, P, 2); beyond the border lie zeros, as published."""
    return functional.grid_sample(maps, 2 * points.unsqueeze(2) - 1, align_corners=False).squeeze(3)


class CountedArea:
    """The pixels of one label map (H, W) that count."""

    def __init__(self, target: Tensor) -> None:
        ignored = target == IGNORE
        self._size = target.shape
        self._counted = (~ignored).flatten().nonzero()[:, 0]
        self._ignored = ignored.float()[None, None] if bool(ignored.any()) else None

    def random_points(self, rows: int, count: int) -> Tensor:
        """Points (rows, count, 2), evenly spread."""
        return self._keep_clear(torch.rand(rows, count, 2, device=self._counted.device))

    def unseen(self, size: tuple[int, int]) -> Tensor:
        """Cells (h, w) of a coarser or equal grid that no pixel that counts looks at when the grid is resampled to pixels."""
        if self._ignored is None:
            return torch.zeros(size, dtype=torch.bool, device=self._counted.device)
        with torch.enable_grad():
            cells = self._ignored.new_zeros(1, 1, *size).requires_grad_()
            pixels = functional.interpolate(cells, size=self._size, mode="bilinear", align_corners=False)
            (weight,) = torch.autograd.grad(pixels, cells, 1 - self._ignored)
        return weight[0, 0] < LEAST_WEIGHT

    def _keep_clear(self, points: Tensor) -> Tensor:
        """Move each point that looks at an ignored pixel to the centre of a random pixel that counts."""
        if self._ignored is None:
            return points
        looks = sample_at(self._ignored, points.view(1, -1, 2)).view(points.shape[:-1]) > 0
        draws = torch.rand(points.shape[:-1], device=points.device) * len(self._counted)
        pixels = self._counted[draws.long().clamp_max(len(self._counted) - 1)]
        height, width = self._size
        centres = torch.stack([(pixels % width + 0.5) / width, (pixels // width + 0.5) / height], dim=-1)
        return torch.where(looks.unsqueeze(-1), centres, points)


@torch.no_grad()
def uncertain_points(masks: Sequence[Tensor], areas: Sequence[CountedArea], settings: Mask2FormerSettings) -> Tensor:
    """Points (N, P, 2) of N masks, given image by image as (n, h, w): most where a mask is least sure of itself, the rest
    anywhere in its image's area."""
    drawn = _points(masks, areas, int(settings.points * settings.oversample))
    kept = int(settings.points * settings.importance)
    certainty = sample_at(torch.cat(list(masks)).unsqueeze(1), drawn)[:, 0].abs()
    chosen = certainty.topk(kept, dim=1, largest=False).indices
    rest = _points(masks, areas, settings.points - kept)
    return torch.cat([drawn.gather(1, chosen.unsqueeze(-1).expand(-1, -1, 2)), rest], dim=1)


def _points(masks: Sequence[Tensor], areas: Sequence[CountedArea], count: int) -> Tensor:
    return torch.cat([area.random_points(len(part), count) for part, area in zip(masks, areas, strict=True)])
