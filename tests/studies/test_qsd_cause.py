"""The study of why a cold start fails: its variants are what they are called."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from gkd_core.distill.qsd import QuerySoftDistillation
from gkd_core.distill.warm_start import value_loss
from gkd_core.models.encoder import Encoder
from studies.qsd_cause import LOSSES, decodable_share

Inputs = tuple[QuerySoftDistillation, Tensor, Tensor]


@pytest.fixture
def inputs() -> Inputs:
    torch.manual_seed(0)
    return QuerySoftDistillation(6, 4), torch.randn(2, 9, 6), torch.randn(2, 9, 4)


@pytest.mark.parametrize("variant", ["annealed diagonal bias", "warm start, regression", "warm start, matching"])
def test_what_has_started_is_the_published_form(inputs: Inputs, variant: str) -> None:
    torch.testing.assert_close(LOSSES[variant](*inputs, 0.75), LOSSES["published"](*inputs, 0.75))
    assert abs(LOSSES[variant](*inputs, 0.0) - LOSSES["published"](*inputs, 0.0)) > 1e-3


def test_a_large_diagonal_bias_is_plain_mse(inputs: Inputs) -> None:
    head, student, teacher = inputs
    torch.testing.assert_close(LOSSES["annealed diagonal bias"](*inputs, 0.0), value_loss(head, student, teacher))


def test_what_all_keys_share_is_no_cause(inputs: Inputs) -> None:
    """A softmax over keys does not see a vector that all of them carry."""
    torch.testing.assert_close(LOSSES["keys centred"](*inputs, 0.0), LOSSES["published"](*inputs, 0.0))


def test_decodable_share_is_one_for_a_linear_map_and_none_for_noise(vit: Encoder) -> None:
    torch.manual_seed(0)
    images = torch.rand(60, 3, 32, 32)
    with torch.no_grad():
        tokens = vit.eval().tokens(images).patches
    assert decodable_share(vit, images, tokens @ torch.randn(24, 8), held_back=20) == pytest.approx(1, abs=1e-2)
    assert decodable_share(vit, images, torch.randn(60, 16, 8), held_back=20) < 0.1
