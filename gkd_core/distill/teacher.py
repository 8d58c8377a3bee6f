"""The teacher's answers: tokens on the student's grid, from a frozen encoder or from the cache of fixed views."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from functools import cached_property

import torch
from torch import Tensor
from torch.nn import functional

from gkd_core.data.order.loader import batches_ahead
from gkd_core.distill.token_cache import TokenCache
from gkd_core.distill.views import ViewMaker
from gkd_core.models.encoder import Encoder, Tokens
from gkd_core.settings import Precision
from gkd_core.training.precision import autocast
from gkd_core.training.progress import progress
from gkd_core.training.rank import Rank

Grid = tuple[int, int]


class Teacher:
    """A frozen encoder that gives float32 tokens on the student's grid; it takes no part in the gradients' exchange.

    Args:
        encoder: in evaluation mode, without gradients.
        grid: rows and columns of the student's patch tokens.
    """

    def __init__(self, encoder: Encoder, grid: Grid, precision: Precision, device: torch.device) -> None:
        self.encoder, self._grid, self._precision, self.device = encoder, grid, precision, device

    @torch.no_grad()
    def tokens(self, images: Tensor) -> Tokens:
        """Tokens of views (B, 3, H, W) that lie on the teacher's device."""
        with autocast(self.device, self._precision):
            cls, patches = self.encoder.tokens(images)
        source = self.encoder.grid(images.shape[-2], images.shape[-1])
        return align(Tokens(cls.float(), patches.float()), source, self._grid)


class CachedTeacher:
    """A teacher that looks at each fixed view once.

    Args:
        open_cache: gives the cache of its tokens, filled; called with the first question, so that a training that has
            nothing left to do computes nothing.
    """

    def __init__(self, teacher: Teacher, open_cache: Callable[[], TokenCache]) -> None:
        self._teacher, self._open_cache = teacher, open_cache

    @cached_property
    def _cache(self) -> TokenCache:
        return self._open_cache()

    def tokens(self, images: Tensor, slots: Tensor) -> Tokens:
        """Tokens of fixed views (B, 3, H, W) with these numbers (B,): read where they are kept, else computed."""
        kept = slots < self._cache.views
        if kept.all():
            return _apart(self._cache.read(slots).to(images.device).float())
        fresh = _joined(self._teacher.tokens(images[~kept]))
        joined = fresh.new_empty(len(slots), *fresh.shape[1:])
        joined[~kept] = fresh
        joined[kept] = self._cache.read(slots[kept]).to(fresh)
        return _apart(joined)


def fill(cache: TokenCache, teacher: Teacher, views: ViewMaker, title: str, rank: Rank, loaders: int) -> None:
    """Compute the tokens that a cache lacks, with progress."""
    if cache.done == cache.blocks:
        return
    pinned = teacher.device.type == "cuda"
    ahead = batches_ahead(lambda block: (block, views.fixed(cache.block(block))), cache.missing(rank), loaders, pinned)
    with closing(ahead), progress(f"{title}, the teacher's tokens", cache.blocks) as advance:
        for block, images in ahead:
            cache.write(block, _joined(teacher.tokens(images.to(teacher.device))))
            advance(cache.done)


def _joined(tokens: Tokens) -> Tensor:
    """cls and patches as one tensor (B, N + 1, C)."""
    return torch.cat([tokens.cls.unsqueeze(1), tokens.patches], dim=1)


def _apart(joined: Tensor) -> Tokens:
    return Tokens(joined[:, 0], joined[:, 1:])


def align(tokens: Tokens, source: Grid, target: Grid) -> Tokens:
    """Patch tokens (B, rows · columns, C) of the grid `source`, resampled bilinearly to the grid `target`; cls as it is.

    Grids are (rows, columns) over the same view, so each token of the target is a blend of those around its centre.

    Raises:
        ValueError: the patch tokens are not those of the grid `source`.
    """
    rows, columns = source
    if tokens.patches.shape[1] != rows * columns:
        raise ValueError(f"{tokens.patches.shape[1]} patch tokens are not a grid of {rows} × {columns}")
    if source == target:
        return tokens
    grid = tokens.patches.transpose(1, 2).unflatten(2, source)
    resampled = functional.interpolate(grid, size=target, mode="bilinear", align_corners=False)
    return Tokens(tokens.cls, resampled.flatten(2).transpose(1, 2))
