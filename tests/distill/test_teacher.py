"""Tokens brought from one grid to another."""

from __future__ import annotations

import pytest
import torch

from gkd_core.distill.teacher import align
from gkd_core.models.encoder import Tokens


def positions(rows: int, columns: int) -> Tokens:
    """Each patch token is its own centre, as shares of the image; the cls token is something else."""
    down, right = (torch.arange(rows) + 0.5) / rows, (torch.arange(columns) + 0.5) / columns
    grid = torch.stack(torch.meshgrid(down, right, indexing="ij"), dim=-1)
    return Tokens(torch.tensor([[7.0, 9.0]]), grid.flatten(0, 1).unsqueeze(0))


@pytest.mark.parametrize(("source", "target"), [((16, 16), (14, 14)), ((8, 10), (4, 5)), ((4, 6), (8, 12)), ((3, 5), (5, 3))])
def test_a_token_lies_where_it_lay(source: tuple[int, int], target: tuple[int, int]) -> None:
    """Positions are linear over the image, so bilinear resampling must give the target's own, away from the border."""
    tokens = align(positions(*source), source, target)
    wanted = positions(*target).patches
    inside = ((wanted >= 0.5 / min(source)) & (wanted <= 1 - 0.5 / min(source))).all(dim=-1)
    assert tokens.patches.shape == (1, target[0] * target[1], 2)
    assert inside.any()
    torch.testing.assert_close(tokens.patches[inside], wanted[inside])
    assert torch.equal(tokens.cls, positions(*source).cls)


def test_equal_grids_are_left_alone() -> None:
    tokens = positions(4, 6)
    assert align(tokens, (4, 6), (4, 6)) is tokens


def test_a_grid_that_is_not_the_tokens_is_refused() -> None:
    with pytest.raises(ValueError, match="24 patch tokens are not a grid of 5 × 5"):
        align(positions(4, 6), (5, 5), (4, 4))
