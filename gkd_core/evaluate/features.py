"""Two encoders' tokens compared: principal components as colours, and linear CKA as a number."""

from __future__ import annotations

import torch
from torch import Tensor

COMPONENTS = 3
LOW, HIGH = 0.02, 0.98  # quantiles that become the darkest and the brightest value of a colour
LEAST_TOKENS = 4  # for an unbiased CKA


def principal_scores(tokens: Tensor) -> tuple[Tensor, float]:
    """Scores (n, 3) of tokens (n, C) in their first three principal components, and the share of variance that these hold.

    Signs are such that each component's largest coefficient is positive. Components that the tokens have not, are zero.
    """
    centred = tokens.double() - tokens.double().mean(dim=0)
    left, values, right = torch.linalg.svd(centred, full_matrices=False)
    kept = min(COMPONENTS, len(values))
    largest = right[:kept].gather(1, right[:kept].abs().argmax(dim=1, keepdim=True)).squeeze(1)
    scores = centred.new_zeros(len(tokens), COMPONENTS)
    scores[:, :kept] = left[:, :kept] * values[:kept] * largest.sign()
    whole = values.square().sum()
    return scores, float(values[:kept].square().sum() / whole) if whole > 0 else 0.0


def turned(scores: Tensor, towards: Tensor) -> Tensor:
    """Scores (n, k) after the rotation or reflection that brings them nearest to others (n, k): orthogonal Procrustes.

    Only the axes turn: distances between the tokens stay as they are, so nothing is made to look alike that is not.
    """
    left, _, right = torch.linalg.svd(scores.T @ towards)
    return scores @ (left @ right)


def colors_of(scores: Tensor) -> Tensor:
    """Scores (n, 3) as red, green, blue, uint8 (n, 3): each from its 2nd to its 98th percentile; grey where it is constant."""
    points = scores.new_tensor([LOW, HIGH])
    low, high = torch.quantile(scores, points, dim=0)
    spread = high - low
    shares = torch.where(spread > 0, (scores - low) / spread.clamp_min(torch.finfo(scores.dtype).tiny), 0.5)
    return (shares.clamp(0, 1) * 255).round().to(torch.uint8)


def linear_cka(first: Tensor, second: Tensor) -> float | None:
    """Linear centred kernel alignment of two encoders' tokens (n, C1) and (n, C2) of the same places: 1 where they are the same
    up to rotation and scale, about 0 where they have nothing in common; None where that cannot be said, of fewer than four
    tokens or tokens that are all the same.

    By the unbiased estimate of HSIC (Song et al. 2012; Nguyen et al. 2021): the usual one calls tokens alike that are not when
    they have about as many channels as there are tokens. It may be a little below 0.
    """
    if len(first) != len(second):
        raise ValueError(f"{len(first)} and {len(second)} tokens are not of the same places")
    if len(first) < LEAST_TOKENS:
        return None
    x, y = (_scaled(tokens.double() - tokens.double().mean(dim=0)) for tokens in (first, second))
    if not (x.any() and y.any()):
        return None
    own = _hsic(x, x) * _hsic(y, y)
    return float(_hsic(x, y) / own.sqrt()) if own > 0 else None


def _scaled(tokens: Tensor) -> Tensor:
    """Of length about 1, which changes no CKA; rounding errors of tokens that are all the same become zero."""
    length = tokens.norm(dim=1).mean()
    return tokens / length if length > 1e-9 else torch.zeros_like(tokens)


def _hsic(x: Tensor, y: Tensor) -> Tensor:
    """Unbiased HSIC of linear kernels, times n (n - 3), without a matrix of n × n: with K = X Xᵀ and L = Y Yᵀ, both with zero
    diagonals, tr(K L) + 1ᵀK1 · 1ᵀL1 / ((n - 1)(n - 2)) - 2 / (n - 2) · 1ᵀK L1."""
    count = len(x)
    x_own, y_own = x.square().sum(dim=1), y.square().sum(dim=1)
    x_rows, y_rows = x @ x.sum(dim=0) - x_own, y @ y.sum(dim=0) - y_own
    trace = (x.T @ y).square().sum() - x_own @ y_own
    return trace + x_rows.sum() * y_rows.sum() / ((count - 1) * (count - 2)) - 2 / (count - 2) * (x_rows @ y_rows)
