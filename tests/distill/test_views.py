"""Which patches are hidden: how many, of which images, and by which seed."""

from __future__ import annotations

import pytest
import torch

from gkd_core.distill.views import draw_masks
from gkd_core.seeding import generator


@pytest.mark.parametrize(
    ("batch", "patches", "probability", "ratio", "images", "hidden"),
    [
        (8, 16, 0.5, 0.5, 4, 8),
        (8, 49, 0.5, 0.5, 4, 24),
        (6, 10, 1.0, 0.3, 6, 3),
        (5, 10, 0.0, 0.5, 0, 5),
        (4, 9, 0.5, 0.0, 2, 0),
        (4, 9, 0.5, 1.0, 2, 9),
    ],
)
def test_counts_are_exact(batch: int, patches: int, probability: float, ratio: float, images: int, hidden: int) -> None:
    masks = draw_masks(batch, patches, probability, ratio, generator("masks"))
    assert masks.shape == (images, patches)
    assert masks.dtype == torch.bool
    assert masks.sum(dim=1).tolist() == [hidden] * images


def test_images_are_drawn_on_their_own_and_seeded() -> None:
    first = draw_masks(8, 64, 1.0, 0.5, generator("masks", 1))
    assert torch.equal(first, draw_masks(8, 64, 1.0, 0.5, generator("masks", 1)))
    assert not torch.equal(first, draw_masks(8, 64, 1.0, 0.5, generator("masks", 2)))
    assert len({tuple(row.tolist()) for row in first}) == 8


def test_every_patch_is_hidden_about_equally_often() -> None:
    often = draw_masks(2000, 10, 1.0, 0.5, generator("masks")).float().mean(dim=0)
    assert (often - 0.5).abs().max() < 0.05
