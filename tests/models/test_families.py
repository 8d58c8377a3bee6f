"""What every encoder owes its users, for each named family: tiny variants of timm's own entries."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import pytest
import timm
import torch
from torch import Tensor, nn

from gkd_core.errors import SettingsError
from gkd_core.models.build import build_encoder
from gkd_core.models.cnn import CNNEncoder
from gkd_core.models.encoder import Encoder
from gkd_core.models.vit import ViTEncoder, strip_head
from gkd_core.settings import EncoderSettings

TINY = {"embed_dim": 24, "depth": 4, "num_heads": 2}


class Family(NamedTuple):
    """One architecture small enough for a test, and what is to be expected of it."""

    arch: str
    patch: int | None = None
    options: Mapping[str, Any] = TINY
    cls_is: str = "class token"

    def build(self, **options: Any) -> Encoder:
        """On a grid of 4 × 4 patches."""
        image = None if self.patch is None else 4 * self.patch
        return build_encoder(
            EncoderSettings(
                arch=self.arch,
                patch_size=self.patch,
                image_size=image,
                token_strides=(16, 32),
                options={**self.options, **options},
            ),
            seed=0,
        )


SWIGLU = TINY | {"mlp_ratio": 2}
SAM = TINY | {"neck_chans": 16, "window_size": 3}
MEAN = "mean of patches"
TRANSFORMERS = {
    "vit": Family("vit_small_patch16_224", 8),
    "dino": Family("vit_small_patch8_224.dino", 8),
    "dinov2-s": Family("vit_small_patch14_dinov2", 14),
    "dinov2-b": Family("vit_base_patch14_dinov2", 14),
    "dinov2-l": Family("vit_large_patch14_dinov2", 14),
    "dinov2-g": Family("vit_giant_patch14_dinov2", 14, SWIGLU),
    "dinov2-reg": Family("vit_small_patch14_reg4_dinov2", 14),
    "dinov2-g-reg": Family("vit_giant_patch14_reg4_dinov2", 14, SWIGLU),
    "dinov3": Family("vit_small_patch16_dinov3", 8),
    "dinov3-plus": Family("vit_small_plus_patch16_dinov3", 8),
    "dinov3-bias": Family("vit_base_patch16_dinov3_qkvb", 8),
    "dinov3-7b": Family("vit_7b_patch16_dinov3", 8, SWIGLU),
    "eva02-ti": Family("eva02_tiny_patch14_224", 14),
    "eva02-s": Family("eva02_small_patch14_224", 14),
    "eva02-b": Family("eva02_base_patch14_224", 14),
    "eva02-l": Family("eva02_large_patch14_224", 14),
    "deit": Family("deit_small_patch16_224", 8),
    "deit-distilled": Family("deit_small_distilled_patch16_224", 8),
    "deit3": Family("deit3_small_patch16_224", 8),
    "clip": Family("vit_base_patch16_clip_224", 8),
    "siglip": Family("vit_base_patch16_siglip_224", 8, cls_is=MEAN),
    "registers-alone": Family("vit_base_patch16_rope_reg1_gap_256", 8, cls_is=MEAN),
    "rope-mixed": Family("vit_small_patch16_rope_mixed_ape_224", 8),
    "sam": Family("samvit_base_patch16", 8, SAM, MEAN),
    "sam-224": Family("samvit_base_patch16_224", 8, TINY | {"window_size": 3}, MEAN),
}
PYRAMIDS = {
    "dinov3-convnext": Family("convnext_tiny.dinov3_lvd1689m", None, {}, MEAN),
    "convnext": Family("convnext_atto", None, {}, MEAN),
    "resnet": Family("resnet10t", None, {}, MEAN),
    "mobilenet": Family("mobilenetv3_small_050", None, {}, MEAN),
    "efficientnet": Family("tf_efficientnet_lite0", None, {}, MEAN),
    "swin": Family("swin_tiny_patch4_window7_224", None, {"strict_img_size": False, "embed_dim": 24}, MEAN),
}
FAMILIES = TRANSFORMERS | PYRAMIDS
every_family = pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
every_transformer = pytest.mark.parametrize("family", TRANSFORMERS.values(), ids=TRANSFORMERS)


def awake(encoder: Encoder) -> Encoder:
    """Evaluation mode, with every parameter that begins near zero (mask tokens, layer scales, SAM's tables) made to count."""
    torch.manual_seed(1)
    for parameter in encoder.parameters():
        if parameter.abs().max() < 1e-3:
            nn.init.normal_(parameter, std=0.5)
    return encoder.eval()


def views(encoder: Encoder, batch: int = 2) -> Tensor:
    """Images of 4 × 4 patches."""
    torch.manual_seed(2)
    return torch.rand(batch, 3, 4 * encoder.token_stride, 4 * encoder.token_stride)


def changed(encoder: Encoder, images: Tensor, row: int, column: int) -> Tensor:
    """The images with other content in one patch."""
    side = encoder.token_stride
    other = images.clone()
    other[:, :, row * side : (row + 1) * side, column * side : (column + 1) * side] = torch.rand(3, side, side)
    return other


@every_family
def test_one_training_step_reaches_every_parameter(family: Family) -> None:
    encoder = family.build().train()
    images = views(encoder)
    mask = torch.zeros(2, 16, dtype=torch.bool)
    mask[0, ::2] = True
    tokens = encoder.tokens(images, mask)
    assert (tokens.cls.shape, tokens.patches.shape) == ((2, encoder.dim), (2, 16, encoder.dim))
    assert encoder.cls_is == family.cls_is
    # Weighted, because the mean and the deviation of normed tokens are fixed, and their gradient zero.
    weights = torch.linspace(-1, 1, encoder.dim)
    ((tokens.cls * weights).tanh().sum() + (tokens.patches * weights).tanh().sum()).backward()
    for name, parameter in encoder.named_parameters():
        assert parameter.grad is not None, f"{name} takes no part"
        assert bool(parameter.grad.isfinite().all()), name
    before = {name: parameter.detach().clone() for name, parameter in encoder.named_parameters()}
    torch.optim.AdamW(encoder.parameters(), lr=1e-3).step()
    assert all(not torch.equal(parameter, before[name]) for name, parameter in encoder.named_parameters() if name[:4] == "mask")
    assert all(bool(parameter.isfinite().all()) for parameter in encoder.parameters())


@every_family
@torch.no_grad()
def test_hidden_patches_are_hidden_and_others_are_not(family: Family) -> None:
    encoder = awake(family.build())
    images = views(encoder)
    mask = torch.zeros(2, 16, dtype=torch.bool)
    mask[:, 5] = True  # second row, second column
    other = changed(encoder, images, 1, 1)
    assert not torch.equal(encoder.tokens(images).patches, encoder.tokens(other).patches)
    for before, after in zip(encoder.tokens(images, mask), encoder.tokens(other, mask), strict=True):
        assert torch.equal(before, after)
    elsewhere = changed(encoder, images, 3, 2)
    for before, after in zip(encoder.tokens(images, mask), encoder.tokens(elsewhere, mask), strict=True):
        assert not torch.equal(before, after)
    nothing = torch.zeros(2, 16, dtype=torch.bool)
    assert torch.equal(encoder.tokens(images, nothing).patches, encoder.tokens(images).patches)


@every_family
@torch.no_grad()
def test_a_hidden_patch_still_knows_where_it_is(family: Family) -> None:
    """All but one patch hidden: what the others hold depends on where they stand to it."""
    encoder = awake(family.build())
    mask = torch.ones(1, 16, dtype=torch.bool)
    mask[0, 0] = False
    hidden = encoder.tokens(views(encoder, batch=1), mask).patches[0, 1:]
    distances = torch.cdist(hidden, hidden) + torch.eye(15) * 1e9
    if isinstance(encoder, CNNEncoder):
        assert hidden.std(dim=0).max() > 1e-4, "masked pixels know of places through their neighbourhood alone"
    else:
        assert distances.min() > 1e-5


@every_family
@torch.no_grad()
def test_four_maps_at_their_strides(family: Family) -> None:
    encoder = awake(family.build())
    images = torch.cat([views(encoder)] * 2, dim=2)
    height, width = images.shape[-2:]
    shapes = [tuple(m.shape) for m in encoder.feature_maps(images)]
    assert shapes == [
        (2, dim, height // stride, width // stride) for dim, stride in zip(encoder.map_dims, (4, 8, 16, 32), strict=True)
    ]
    assert encoder.tokens(images).patches.shape == (2, 32, encoder.dim)


def whole_model(family: Family, encoder: ViTEncoder) -> nn.Module:
    """timm's model with the weights of ours."""
    side = family.patch or 0
    options = {"dynamic_img_size": True} if "sam" not in family.arch else {}
    reference = timm.create_model(
        family.arch, num_classes=0, img_size=4 * side, patch_size=side, **(options | dict(family.options))
    )
    strip_head(reference)
    reference.load_state_dict(encoder.backbone.state_dict())
    return reference.eval()


@every_transformer
@torch.no_grad()
def test_tokens_are_those_of_timms_own_forward(family: Family) -> None:
    encoder = awake(family.build())
    assert isinstance(encoder, ViTEncoder)
    images = views(encoder)
    reference = whole_model(family, encoder)
    expected = reference.forward_features(encoder.normalise(images))
    if expected.ndim == 4:  # SAM's neck gives a map
        expected = expected.flatten(2).transpose(1, 2)
    if isinstance(reference.fc_norm if hasattr(reference, "fc_norm") else None, nn.LayerNorm):
        expected = reference.fc_norm(expected)
    cls, patches = encoder.tokens(images)
    torch.testing.assert_close(patches, expected[:, -16:])
    torch.testing.assert_close(cls, expected[:, 0] if family.cls_is == "class token" else expected[:, -16:].mean(dim=1))


def counted(encoder: Encoder, images: Tensor) -> tuple[Tensor, int]:
    """A loss, and how many numbers its graph keeps for the backward pass."""
    sizes: list[int] = []

    def keep(tensor: Tensor) -> Tensor:
        sizes.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = encoder.tokens(images).patches.tanh().sum()
    return loss, sum(sizes)


REPRESENTATIVES = ["vit", "dinov2-reg", "eva02-b", "rope-mixed", "sam", "convnext"]


@pytest.mark.parametrize("family", [FAMILIES[name] for name in REPRESENTATIVES], ids=REPRESENTATIVES)
def test_checkpointing_changes_memory_and_nothing_else(family: Family) -> None:
    images, gradients, kept = views(family.build()), [], []
    for checkpointing in (False, True):
        encoder = awake(family.build())
        if checkpointing:
            encoder.enable_checkpointing()
        loss, numbers = counted(encoder, images)
        kept.append(numbers)
        loss.backward()
        gradients.append({name: parameter.grad for name, parameter in encoder.named_parameters() if parameter.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, msg=name)
    assert kept[1] < 0.6 * kept[0], "activations are still kept"


def test_checkpointing_moves_batch_statistics_twice() -> None:
    """Stated in the docs: a CNN's statistics are updated in the forward pass and again when it is repeated."""
    encoder = PYRAMIDS["resnet"].build().train()
    encoder.enable_checkpointing()
    encoder.tokens(views(encoder)).patches.sum().backward()
    counts = {int(tensor) for name, tensor in encoder.state_dict().items() if name.endswith("num_batches_tracked")}
    assert counts == {1, 2}


def test_a_backbone_without_checkpointing_says_so() -> None:
    encoder = PYRAMIDS["resnet"].build()
    encoder.backbone = nn.Identity()
    with pytest.raises(SettingsError, match="activation checkpointing: timm has none for Identity"):
        encoder.enable_checkpointing()


def test_drop_path_comes_in_through_the_options() -> None:
    encoder = TRANSFORMERS["eva02-s"].build(drop_path_rate=0.9).train()
    images = views(encoder)
    with torch.no_grad():
        assert not torch.equal(encoder.tokens(images).patches, encoder.tokens(images).patches)
