"""Vision transformers as encoders."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from gkd_core.errors import DataError
from gkd_core.models.encoder import Encoder
from gkd_core.models.vit import ViTEncoder, pyramid_blocks
from gkd_core.settings import FeatureNorm


@pytest.fixture
def eager(vit: Encoder) -> Encoder:
    """The tiny ViT in evaluation mode with a mask token that is not zero."""
    nn.init.normal_(vit.get_parameter("mask_token"))
    return vit.eval()


@pytest.mark.parametrize(("size", "patches"), [((32, 32), 16), ((16, 48), 12), ((64, 32), 32)])
@torch.no_grad()
def test_tokens_and_maps_have_their_shapes_at_any_image_size(eager: Encoder, size: tuple[int, int], patches: int) -> None:
    images = torch.rand(2, 3, *size)
    cls, tokens = eager.tokens(images)
    assert cls.shape == (2, 24)
    assert tokens.shape == (2, patches, 24)
    rows, columns = eager.grid(*size)
    assert rows * columns == patches
    shapes = [tuple(m.shape) for m in eager.feature_maps(images)]
    assert shapes == [(2, 24, max(1, size[0] // stride), max(1, size[1] // stride)) for stride in (4, 8, 16, 32)]


@torch.no_grad()
def test_tokens_are_timms_own_final_norm(eager: Encoder) -> None:
    assert isinstance(eager, ViTEncoder)
    images = torch.rand(2, 3, 32, 32)
    reference = eager.backbone.forward_features(eager.normalise(images))
    torch.testing.assert_close(torch.cat([eager.tokens(images).cls.unsqueeze(1), eager.tokens(images).patches], dim=1), reference)


@pytest.mark.parametrize("norm", ["none", "final"])
@torch.no_grad()
def test_the_map_at_the_patch_stride_holds_tokens_in_their_places(eager: Encoder, norm: FeatureNorm) -> None:
    """With two blocks the coarsest map comes from the last one; at stride 8 = patch the block before it is not resampled."""
    assert isinstance(eager, ViTEncoder)
    images = torch.rand(1, 3, 32, 32)
    after_first = eager.backbone.get_intermediate_layers(eager.normalise(images), n=[0], reshape=True, norm=norm == "final")[0]
    torch.testing.assert_close(eager.feature_maps(images, norm)[1], after_first)


@torch.no_grad()
def test_a_masked_patch_is_really_hidden(eager: Encoder) -> None:
    images, mask = torch.rand(1, 3, 32, 32), torch.zeros(1, 16, dtype=torch.bool)
    mask[0, 5] = True  # second row, second column
    changed = images.clone()
    changed[:, :, 8:16, 8:16] = torch.rand(1, 3, 8, 8)
    assert not torch.equal(eager.tokens(images).patches, eager.tokens(changed).patches)
    for before, after in zip(eager.tokens(images, mask), eager.tokens(changed, mask), strict=True):
        assert torch.equal(before, after)
    changed[:, :, 0, 0] += 0.5
    assert not torch.equal(eager.tokens(images, mask).patches, eager.tokens(changed, mask).patches)


@torch.no_grad()
def test_a_masked_patch_still_knows_where_it_is(eager: Encoder) -> None:
    """The mask replaces the patch before the position table is added: with all hidden, places still differ."""
    assert isinstance(eager, ViTEncoder)
    hidden = torch.ones(1, 16, dtype=torch.bool)
    images = torch.rand(1, 3, 32, 32)
    first_block = eager.backbone.blocks[0]
    seen: list[torch.Tensor] = []
    first_block.register_forward_pre_hook(lambda block, arguments: seen.append(arguments[0]))
    eager.tokens(images, hidden)
    torch.testing.assert_close(seen[0][:, 1:], eager.mask_token + eager.backbone.pos_embed[:, 1:])
    nothing = torch.zeros(1, 16, dtype=torch.bool)
    assert torch.equal(eager.tokens(images, nothing).patches, eager.tokens(images).patches)


def test_pyramid_takes_the_released_blocks() -> None:
    assert pyramid_blocks(12) == [3, 5, 7, 11]
    assert pyramid_blocks(24) == [7, 11, 15, 23]
    assert pyramid_blocks(40) == [12, 19, 25, 39]
    for depth in range(1, 41):
        taken = pyramid_blocks(depth)
        assert taken == sorted(taken)
        assert taken[0] >= 0
        assert taken[-1] == depth - 1


def test_a_size_that_patches_do_not_tile_is_refused(vit: Encoder) -> None:
    with pytest.raises(DataError, match="image of 30 × 32 pixels: both sides must be multiples of the patch, 8"):
        vit.tokens(torch.rand(1, 3, 30, 32))
