"""Convolutional networks as encoders."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from gkd_core.errors import SettingsError
from gkd_core.models.build import build_encoder
from gkd_core.models.encoder import Encoder
from gkd_core.settings import EncoderSettings


def cnn(*strides: int) -> Encoder:
    encoder = build_encoder(EncoderSettings(arch="resnet10t", token_strides=strides or (16,)), 0).eval()
    nn.init.normal_(encoder.get_parameter("mask_pixel"))
    return encoder


@torch.no_grad()
def test_tokens_and_maps_have_their_shapes() -> None:
    encoder = cnn()
    cls, patches = encoder.tokens(torch.rand(2, 3, 64, 96))
    assert patches.shape == (2, 4 * 6, encoder.dim)
    assert (encoder.dim, encoder.token_stride) == (256, 16)
    torch.testing.assert_close(cls, patches.mean(dim=1))
    maps = encoder.feature_maps(torch.rand(2, 3, 64, 96))
    assert [tuple(m.shape) for m in maps] == [
        (2, dim, 64 // s, 96 // s) for dim, s in zip(encoder.map_dims, (4, 8, 16, 32), strict=True)
    ]


@torch.no_grad()
def test_joined_maps_stand_side_by_side_each_normalised() -> None:
    encoder = cnn(16, 32)
    images = torch.rand(1, 3, 64, 64)
    patches = encoder.tokens(images).patches
    assert patches.shape == (1, 16, 256 + 512)
    for part in (patches[..., :256], patches[..., 256:]):
        torch.testing.assert_close(part.mean(dim=-1), torch.zeros(1, 16), atol=1e-5, rtol=0)
        torch.testing.assert_close(part.std(dim=-1, correction=0), torch.ones(1, 16), atol=1e-2, rtol=0)
    torch.testing.assert_close(patches[..., :256], cnn(16).tokens(images).patches)


@torch.no_grad()
def test_a_masked_patch_is_really_hidden() -> None:
    encoder = cnn()
    images, mask = torch.rand(1, 3, 64, 64), torch.zeros(1, 16, dtype=torch.bool)
    mask[0, 5] = True  # second row, second column
    changed = images.clone()
    changed[:, :, 16:32, 16:32] = torch.rand(1, 3, 16, 16)
    assert not torch.equal(encoder.tokens(images).patches, encoder.tokens(changed).patches)
    assert torch.equal(encoder.tokens(images, mask).patches, encoder.tokens(changed, mask).patches)
    changed[:, :, :16, :16] += 0.5
    assert not torch.equal(encoder.tokens(images, mask).patches, encoder.tokens(changed, mask).patches)


def test_a_stride_without_a_map_is_refused() -> None:
    with pytest.raises(SettingsError, match="no map of stride 7; it has 2, 4, 8, 16, 32"):
        cnn(7)
