"""Attention to look at: read back from an objective's weights, it is that of the objective's own head."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from gkd_core.distill.objective import QSDObjective
from gkd_core.distill.qsd import matching_weight
from gkd_core.distill.results import patch_attention, query_places, read_head, write_objective
from gkd_core.errors import WeightsError
from gkd_core.models.encoder import Encoder


@pytest.mark.parametrize("heads", [1, 4])
def test_attention_is_that_of_the_head_between_patches(vit: Encoder, tmp_path: Path, heads: int) -> None:
    torch.manual_seed(0)
    objective = QSDObjective(vit, 32, heads)
    write_objective({"model": objective.state_dict()}, tmp_path / "objective.safetensors")
    student, teacher = torch.randn(16, vit.dim), torch.randn(16, 32)
    head = read_head(tmp_path / "objective.safetensors", vit.dim, 32, heads)
    attention = patch_attention(head, student, teacher)
    objective.requires_grad_(False)
    own = objective.fea.attention(student[None], teacher[None])
    assert torch.equal(attention, own[0].mean(dim=0))
    assert torch.allclose(attention.sum(dim=1), torch.ones(16))
    assert float(matching_weight(attention)) == pytest.approx(float(matching_weight(own)))
    others = [each.attention(student[None], teacher[None])[0].mean(dim=0) for each in (objective.token, objective.patch)]
    assert not any(torch.allclose(attention, other) for other in others)


def test_heads_of_another_size_are_refused(vit: Encoder, tmp_path: Path) -> None:
    write_objective({"model": QSDObjective(vit, 32).state_dict()}, tmp_path / "objective.safetensors")
    with pytest.raises(WeightsError, match=r"objective\.safetensors: fits only in part"):
        read_head(tmp_path / "objective.safetensors", vit.dim, 48, 1)


def test_queries_lie_on_the_diagonal() -> None:
    assert [divmod(place, 8) for place in query_places((4, 8))] == [(1, 2), (2, 4), (3, 6)]
    assert query_places((1, 1)) == [0]
