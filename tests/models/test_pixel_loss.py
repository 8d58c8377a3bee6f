"""Cross entropy of light decoders: which pixels count, and at which size."""

from __future__ import annotations

import torch
from torch import Tensor

from gkd_core.data.catalog.taxonomy import IGNORE
from gkd_core.models.pixel_loss import segmentation_loss


def logits_and_target() -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    target = torch.randint(0, 4, (2, 8, 8))
    target[torch.rand(2, 8, 8) < 0.4] = IGNORE
    return torch.randn(2, 4, 8, 8), target


def test_ignored_pixels_contribute_nothing() -> None:
    logits, target = logits_and_target()
    counted = target != IGNORE
    by_hand = -logits.log_softmax(dim=1).permute(0, 2, 3, 1)[counted][torch.arange(int(counted.sum())), target[counted]].mean()
    torch.testing.assert_close(segmentation_loss(logits, target), by_hand)
    leaf = logits.clone().requires_grad_()
    segmentation_loss(leaf, target).backward()
    assert leaf.grad is not None
    assert not leaf.grad.permute(0, 2, 3, 1)[~counted].any()
    assert leaf.grad.permute(0, 2, 3, 1)[counted].any()


def test_a_batch_without_counted_pixels_has_no_loss_and_no_nan() -> None:
    logits = torch.randn(1, 4, 8, 8, requires_grad=True)
    loss = segmentation_loss(logits, torch.full((1, 8, 8), IGNORE))
    loss.backward()
    assert loss.item() == 0
    assert logits.grad is not None
    assert not logits.grad.any()


def test_the_loss_is_taken_at_the_labels_size() -> None:
    right = torch.zeros(1, 2, 2, 2)
    right[:, 0, :, 0] = right[:, 1, :, 1] = 10
    target = torch.zeros(1, 16, 16).long()
    target[..., 8:] = 1
    assert segmentation_loss(right, target) < 0.3 < segmentation_loss(right.flip(-1), target)
