"""Tokens of one grid as tokens of another, so that a teacher and a student need not have the same patches."""

from __future__ import annotations

from torch.nn import functional

from gkd_core.models.encoder import Tokens

Grid = tuple[int, int]


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
