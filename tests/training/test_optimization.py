"""Learning rates at the updates where their values are known by hand, and which parameters decay."""

from __future__ import annotations

import math

import pytest
import timm
import torch
from timm.optim import param_groups_weight_decay
from torch import nn

from gkd_core.models.mask2former import Mask2FormerDecoder
from gkd_core.settings import Mask2FormerSettings
from gkd_core.training.optimization import cosine, decay_groups, embeddings, polynomial


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
    decaying, rest = decay_groups(nn.Sequential(frozen, trained), 0.05)
    assert decaying == {"params": [trained[0].weight], "weight_decay": 0.05}
    assert rest == {"params": [trained[0].bias, trained[1].weight, trained[1].bias], "weight_decay": 0.0}


@pytest.mark.parametrize("arch", ["vit_tiny_patch16_224", "efficientnet_lite0", "beitv2_base_patch16_224", "pvt_v2_b0"])
def test_the_groups_have_timms_members(arch: str) -> None:
    with torch.device("meta"):
        model = timm.create_model(arch)
    kept, decayed = param_groups_weight_decay(model, 0.05)
    assert [list(map(id, group["params"])) for group in decay_groups(model, 0.05)] == [
        list(map(id, group["params"])) for group in (decayed, kept)
    ]


def test_an_empty_group_is_a_group() -> None:
    matrices = nn.Linear(2, 2, bias=False)
    assert decay_groups(matrices, 0.05)[1] == {"params": [], "weight_decay": 0.0}
    assert len(param_groups_weight_decay(matrices, 0.05)) == 1


def test_norms_biases_query_and_level_embeddings_do_not_decay() -> None:
    few = Mask2FormerSettings(queries=4, decoder_layers=2, pixel_layers=1)
    with torch.device("meta"):
        decoder = Mask2FormerDecoder([8] * 4, 3, 64, few, "none")
    decayed, still = decay_groups(decoder, 0.05, embeddings(decoder))
    assert (decayed["weight_decay"], still["weight_decay"]) == (0.05, 0.0)
    name_of = {id(parameter): name for name, parameter in decoder.named_parameters()}
    names = [{name_of[id(parameter)] for parameter in group["params"]} for group in (decayed, still)]  # type: ignore[attr-defined]
    assert names[0] | names[1] == set(name_of.values())
    assert not names[0] & names[1]
    exempt = {"pixel_decoder.level_embed", "transformer.level_embed.weight"}
    exempt |= {"transformer.queries_embedder.weight", "transformer.queries_features.weight"}
    assert exempt <= names[1]
    norms = {name for name in name_of.values() if "norm" in name or name.startswith("pixel_decoder.adapter_1.1")}
    assert norms
    assert norms | {name for name in name_of.values() if name.endswith("bias")} <= names[1]
    assert {"classifier.weight", "transformer.decoder.layers.0.fc1.weight", "pixel_decoder.mask_projection.weight"} <= names[0]


def test_what_is_not_trained_is_in_no_group() -> None:
    layer = torch.nn.Linear(2, 2)
    layer.weight.requires_grad_(False)
    decayed, still = decay_groups(layer, 0.1)
    assert decayed["params"] == []
    assert still["params"] == [layer.bias]
