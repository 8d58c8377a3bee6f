"""Transformers made ready for a program of any size: the same answers, whatever the grid of the table and of the image."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from gkd_core.models.any_size import objection_to_any_size, take_any_size
from gkd_core.models.build import build_encoder
from gkd_core.settings import EncoderSettings

TINY = {"embed_dim": 48, "depth": 2, "num_heads": 2}
SIZES = [(32, 32), (64, 96), (96, 64), (16, 160), (24, 24), (200, 120)]
KINDS: dict[str, dict[str, Any]] = {
    "released": {"arch": "vit_tiny_patch16_224"},
    "preserving": {"arch": "vit_tiny_patch16_224", "resize": "preserving"},
    "distilled": {"arch": "deit_tiny_distilled_patch16_224"},
    "registers": {"arch": "vit_small_patch14_reg4_dinov2"},
    "EVA-02": {"arch": "eva02_tiny_patch14_224"},
    "EVA-02 preserving": {"arch": "eva02_tiny_patch14_224", "resize": "preserving"},
}


@pytest.mark.parametrize("kind", KINDS)
@torch.inference_mode()
def test_a_transformer_gives_the_same_tokens(kind: str) -> None:
    settings = EncoderSettings.model_validate({"patch_size": 8, "image_size": 32, "options": TINY, **KINDS[kind]})
    encoder = build_encoder(settings, seed=3).eval()
    table = encoder.backbone.pos_embed
    if table is not None:
        table.copy_(torch.randn(table.shape, generator=torch.Generator().manual_seed(0)))  # else it is next to nothing
    free = copy.deepcopy(encoder)
    assert objection_to_any_size(free) is None
    take_any_size(free)
    for height, width in SIZES:
        images = torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(1))
        torch.testing.assert_close(free.tokens(images).patches, encoder.tokens(images).patches, atol=2e-5, rtol=1e-4)
    own = torch.rand(1, 3, 32, 32)
    torch.testing.assert_close(free.tokens(own).patches, encoder.tokens(own).patches, atol=2e-6, rtol=1e-5)


def test_windows_are_of_one_number() -> None:
    options = {"embed_dim": 48, "depth": 2, "num_heads": 2}
    settings = EncoderSettings.model_validate({"arch": "samvit_base_patch16", "image_size": 64, "options": options})
    assert "windows" in str(objection_to_any_size(build_encoder(settings, seed=0)))


def test_a_pyramid_takes_any_size_as_it_is() -> None:
    encoder = build_encoder(EncoderSettings.model_validate({"arch": "resnet10t"}), seed=0)
    assert objection_to_any_size(encoder) is None
    take_any_size(encoder)
