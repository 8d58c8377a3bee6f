"""Which parameters decay."""

from __future__ import annotations

import torch

from gkd_core.models.mask2former import Mask2FormerDecoder
from gkd_core.settings import Mask2FormerSettings
from gkd_core.task.groups import weight_decay_groups


def test_norms_biases_query_and_level_embeddings_do_not_decay() -> None:
    few = Mask2FormerSettings(queries=4, decoder_layers=2, pixel_layers=1)
    with torch.device("meta"):
        decoder = Mask2FormerDecoder([8] * 4, 3, 64, few)
    decayed, still = weight_decay_groups(decoder, 0.05)
    assert (decayed["weight_decay"], still["weight_decay"]) == (0.05, 0.0)
    name_of = {id(parameter): name for name, parameter in decoder.named_parameters()}
    names = [{name_of[id(parameter)] for parameter in group["params"]} for group in (decayed, still)]  # type: ignore[attr-defined]
    assert names[0] | names[1] == set(name_of.values())
    assert not names[0] & names[1]
    embeddings = {"pixel_decoder.level_embed", "transformer.level_embed.weight"}
    embeddings |= {"transformer.queries_embedder.weight", "transformer.queries_features.weight"}
    assert embeddings <= names[1]
    norms = {name for name in name_of.values() if "norm" in name or name.startswith("pixel_decoder.adapter_1.1")}
    assert norms
    assert norms | {name for name in name_of.values() if name.endswith("bias")} <= names[1]
    assert {"classifier.weight", "transformer.decoder.layers.0.fc1.weight", "pixel_decoder.mask_projection.weight"} <= names[0]


def test_what_is_not_trained_is_in_no_group() -> None:
    layer = torch.nn.Linear(2, 2)
    layer.weight.requires_grad_(False)
    decayed, still = weight_decay_groups(layer, 0.1)
    assert decayed["params"] == []
    assert still["params"] == [layer.bias]
