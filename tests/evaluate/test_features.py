"""Principal components and CKA, against a singular value decomposition and the definition by Gram matrices."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from gkd_core.evaluate.features import colors_of, linear_cka, principal_scores, turned


@pytest.fixture
def draws() -> torch.Generator:
    return torch.Generator().manual_seed(3)


def tokens(draws: torch.Generator, count: int, channels: int) -> Tensor:
    scales = torch.linspace(3, 0.1, channels)
    return torch.randn(count, channels, generator=draws) * scales + 5


def rotation(draws: torch.Generator, size: int) -> Tensor:
    return torch.linalg.qr(torch.randn(size, size, generator=draws, dtype=torch.double)).Q


def test_scores_are_those_of_the_covariances_eigenvectors(draws: torch.Generator) -> None:
    x = tokens(draws, 60, 7).double()
    centred = x - x.mean(dim=0)
    values, vectors = torch.linalg.eigh(centred.T @ centred)
    scores, share = principal_scores(x)
    expected = centred @ vectors[:, [6, 5, 4]]
    assert torch.allclose(scores.abs(), expected.abs())
    assert share == pytest.approx(float(values[4:].sum() / values.sum()))
    assert torch.allclose(scores.T @ scores, torch.diag(values[[6, 5, 4]]), atol=1e-8)


def test_signs_do_not_hang_on_the_order_of_the_tokens(draws: torch.Generator) -> None:
    x = tokens(draws, 40, 5)
    order = torch.randperm(40, generator=draws)
    assert torch.allclose(principal_scores(x)[0][order], principal_scores(x[order])[0])


def test_fewer_directions_than_three_are_zero() -> None:
    line = torch.arange(5.0).unsqueeze(1) * torch.tensor([[1.0, 2.0, 2.0, 0.0]])
    scores, share = principal_scores(line)
    assert torch.allclose(scores[:, 0].abs(), torch.tensor([6.0, 3.0, 0.0, 3.0, 6.0], dtype=torch.double))
    assert scores[:, 1:].abs().max() < 1e-9
    assert share == pytest.approx(1)
    same, nothing = principal_scores(torch.ones(2, 8))
    assert (same.abs().max(), nothing) == (0, 0)


def test_turning_finds_a_rotation_back_and_keeps_distances(draws: torch.Generator) -> None:
    scores = torch.randn(30, 3, generator=draws, dtype=torch.double)
    assert torch.allclose(turned(scores @ rotation(draws, 3), scores), scores)
    other = torch.randn(30, 3, generator=draws, dtype=torch.double)
    moved = turned(other, scores)
    assert torch.allclose(torch.cdist(moved, moved), torch.cdist(other, other), atol=1e-7)
    assert (moved - scores).norm() < (other - scores).norm()
    turns = [other @ rotation(draws, 3) for _ in range(50)]
    assert (moved - scores).norm() < min((each - scores).norm() for each in turns)


def test_colours_reach_from_the_2nd_to_the_98th_percentile() -> None:
    scores = torch.stack([torch.arange(101.0), torch.zeros(101), -torch.arange(101.0)], dim=1).double()
    colors = colors_of(scores)
    assert colors[:, 0].tolist() == [round(255 * min(1.0, max(0.0, (value - 2) / 96))) for value in range(101)]
    assert set(colors[:, 1].tolist()) == {128}
    assert torch.equal(colors[:, 2], colors[:, 0].flip(0))


def gram_cka(x: Tensor, y: Tensor) -> float:
    """The unbiased estimate as it is defined, by matrices of n × n (Song et al. 2012, equation 5)."""

    def hsic(first: Tensor, second: Tensor) -> Tensor:
        k, l = (z.double() @ z.double().T for z in (first, second))  # noqa: E741
        k.fill_diagonal_(0), l.fill_diagonal_(0)
        n, ones = len(k), torch.ones(len(k), dtype=torch.double)
        middle = (ones @ k @ ones) * (ones @ l @ ones) / ((n - 1) * (n - 2))
        return (torch.trace(k @ l) + middle - 2 / (n - 2) * (ones @ k @ l @ ones)) / (n * (n - 3))

    return float(hsic(x, y) / (hsic(x, x) * hsic(y, y)).sqrt())


def test_cka_is_that_of_the_definition(draws: torch.Generator) -> None:
    x = tokens(draws, 25, 6)
    y = x[:, :4] + torch.randn(25, 4, generator=draws)
    cka = linear_cka(x, y)
    assert cka == pytest.approx(gram_cka(x, y))
    assert cka == pytest.approx(linear_cka(y, x))
    assert 0.3 < cka < 0.99


def test_cka_is_one_up_to_rotation_shift_and_scale(draws: torch.Generator) -> None:
    x = tokens(draws, 40, 8).double()
    assert linear_cka(x, 7 * x @ rotation(draws, 8) - 3) == pytest.approx(1)
    assert linear_cka(x, torch.cat([x, torch.zeros(40, 3)], dim=1)) == pytest.approx(1)
    assert linear_cka(x, x @ torch.diag(torch.logspace(0, 2, 8, dtype=torch.double))) < 0.95


def test_cka_of_what_has_nothing_in_common_is_about_zero(draws: torch.Generator) -> None:
    """As many channels as tokens: the biased estimate would say 0.5 or more."""
    found = [linear_cka(*(torch.randn(64, 96, generator=draws) for _ in range(2))) for _ in range(20)]
    assert abs(sum(value for value in found if value is not None) / 20) < 0.05


def test_cka_of_nothing_to_compare_is_none(draws: torch.Generator) -> None:
    x = tokens(draws, 20, 3)
    assert linear_cka(x[:3], x[:3]) is None
    assert linear_cka(x, torch.full((20, 5), 0.1)) is None
    with pytest.raises(ValueError, match="20 and 19 tokens"):
        linear_cka(x, x[1:])
