"""The study of why a cold start fails: its variants are what they are called."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from gkd_core.distill.qsd import QuerySoftDistillation
from gkd_core.models.encoder import Encoder
from studies.qsd_cause import VARIANTS, decodable_share

DIM = 4


def loss_of(variant: str, done: float) -> Tensor:
    """A variant's loss of the same tokens and the same head's weights."""
    kind, loss = VARIANTS[variant]
    torch.manual_seed(0)
    return loss(kind(6, DIM), torch.randn(2, 9, 6), torch.randn(2, 9, DIM), done)


@pytest.mark.parametrize("variant", ["annealed diagonal bias", "warm start, regression", "warm start, matching"])
def test_what_has_started_is_the_published_form(variant: str) -> None:
    torch.testing.assert_close(loss_of(variant, 0.75), loss_of("published", 0.75))
    assert abs(loss_of(variant, 0.0) - loss_of("published", 0.0)) > 1e-3


def test_a_large_diagonal_bias_is_plain_mse() -> None:
    torch.testing.assert_close(loss_of("annealed diagonal bias", 0.0), loss_of("MSE", 0.0))


def test_what_all_keys_share_is_no_cause() -> None:
    """A softmax over keys does not see a vector that all of them carry."""
    torch.testing.assert_close(loss_of("keys centred", 0.0), loss_of("published", 0.0))


def test_scaling_flattens_the_attention() -> None:
    torch.manual_seed(0)
    plain = QuerySoftDistillation(6, DIM)
    scaled = VARIANTS["logits / √d"][0](6, DIM)
    scaled.load_state_dict(plain.state_dict())
    student, teacher = torch.randn(2, 9, 6), torch.randn(2, 9, DIM)
    torch.testing.assert_close(scaled.attention(student, teacher), plain.attention(student, teacher / DIM**0.5))


def test_decodable_share_is_one_for_a_linear_map_and_none_for_noise(vit: Encoder) -> None:
    torch.manual_seed(0)
    images = torch.rand(60, 3, 32, 32)
    with torch.no_grad():
        tokens = vit.eval().tokens(images).patches
    assert decodable_share(vit, images, tokens @ torch.randn(24, 8), held_back=20) == pytest.approx(1, abs=1e-2)
    assert decodable_share(vit, images, torch.randn(60, 16, 8), held_back=20) < 0.1
