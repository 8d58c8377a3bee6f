"""Learning rates at the updates where their values are known by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from gkd_core.training.schedule import cosine, decay_groups, polynomial


def test_cosine_values() -> None:
    rate = cosine(peak=1.0, floor=0.1, updates=110, warmup=10, start=0.01)
    assert rate(0) == pytest.approx(0.01)
    assert rate(5) == pytest.approx(0.01 + 0.99 / 2)
    assert rate(10) == pytest.approx(1.0)
    assert rate(35) == pytest.approx(0.1 + 0.9 * 0.5 * (1 + math.sqrt(0.5)))
    assert rate(60) == pytest.approx(0.55)
    assert rate(110) == rate(500) == pytest.approx(0.1)


def test_cosine_without_warm_up_starts_at_its_peak() -> None:
    assert cosine(peak=5e-4, floor=1e-5, updates=100)(0) == 5e-4


def test_cosine_agrees_with_torch() -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.3)
    reference = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=20, eta_min=0.02)
    rate = cosine(0.3, 0.02, 20)
    for update in range(20):
        assert rate(update) == pytest.approx(optimizer.param_groups[0]["lr"])
        optimizer.step()
        reference.step()


def test_polynomial_values() -> None:
    rate = polynomial(peak=1e-4, updates=40_000, power=0.9)
    assert rate(0) == 1e-4
    assert rate(20_000) == pytest.approx(1e-4 * 0.5**0.9)
    assert rate(40_000) == rate(50_000) == 0


def test_vectors_do_not_decay_and_frozen_parameters_are_left_out() -> None:
    frozen, trained = nn.Linear(2, 2).requires_grad_(False), nn.Sequential(nn.Linear(2, 3), nn.LayerNorm(3))
    decaying, rest = decay_groups([frozen, trained], 0.05)
    assert decaying == {"params": [trained[0].weight], "weight_decay": 0.05}
    assert rest == {"params": [trained[0].bias, trained[1].weight, trained[1].bias], "weight_decay": 0.0}
