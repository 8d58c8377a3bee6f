"""Checkpoints of others, as they name their tensors, give the encoder that they came from."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import timm
import torch
from torch import Tensor

from gkd_core.errors import WeightsError
from gkd_core.models.build import build_encoder
from gkd_core.models.encoder import Encoder
from gkd_core.models.segmentor import build_segmentor
from gkd_core.settings import EncoderSettings

State = dict[str, Tensor]
TINY = {"embed_dim": 24, "depth": 2, "num_heads": 2}


def settings_of(arch: str, patch: int | None = 8, **options: Any) -> EncoderSettings:
    image = None if patch is None else 4 * patch
    return EncoderSettings(arch=arch, patch_size=patch, image_size=image, options=options if patch is None else TINY | options)


def renamed(state: State, *pairs: tuple[str, str], prefix: str = "") -> State:
    def rename(name: str) -> str:
        for pattern, new in pairs:
            name = re.sub(pattern, new, name)
        return prefix + name

    return {rename(name): tensor for name, tensor in state.items()}


def dinov2_giant(state: State) -> State:
    return renamed(state, (r"mlp\.fc1", "mlp.w12"), (r"mlp\.fc2", "mlp.w3")) | {"mask_token": torch.zeros(1, 24)}


def dinov2_registers(state: State) -> State:
    """The original's table has an entry for the class token; timm adds it to the token."""
    original, entry = dict(state), torch.rand(1, 1, 24)
    original["register_tokens"] = original.pop("reg_token")
    original["pos_embed"] = torch.cat([entry, state["pos_embed"]], dim=1)
    original["cls_token"] = state["cls_token"] - entry
    return original | {"mask_token": torch.zeros(1, 24)}


def dinov3(state: State) -> State:
    names = renamed(state, (r"gamma_(\d)", r"ls\1.gamma"), ("reg_token", "storage_tokens"))
    bias = {"blocks.0.attn.qkv.bias": torch.zeros(72), "blocks.0.attn.qkv.bias_mask": torch.zeros(72)}
    return names | bias | {"mask_token": torch.zeros(1, 24), "rope_embed.periods": torch.ones(3)}


def eva02_tiny(state: State) -> State:
    extra = {"mask_token": torch.zeros(1, 1, 24), "lm_head.weight": torch.zeros(8, 24), "rope.freqs_cos": torch.zeros(16, 12)}
    return renamed(state, (r"^fc_norm", "norm")) | extra


def eva02_base(state: State) -> State:
    names = [(r"mlp\.fc1_g", "mlp.w1"), (r"mlp\.fc1_x", "mlp.w2"), (r"mlp\.fc2", "mlp.w3"), (r"mlp\.norm", "mlp.ffn_ln")]
    return renamed(eva02_tiny(state), *names, (r"attn\.([qv])_proj\.bias", r"attn.\1_bias"))


def clip(state: State) -> State:
    names = [
        (r"^norm_pre", "ln_pre"), (r"^norm\.", "ln_post."), (r"norm(\d)", r"ln_\1"), (r"^blocks", "transformer.resblocks"),
        (r"attn\.qkv\.", "attn.in_proj_"), (r"attn\.proj", "attn.out_proj"), (r"mlp\.fc1", "mlp.c_fc"),
        (r"mlp\.fc2", "mlp.c_proj"), (r"patch_embed\.proj", "conv1"),
    ]  # fmt: skip
    original = renamed(state, *names)
    original["class_embedding"] = original.pop("cls_token")[0, 0]
    original["positional_embedding"] = original.pop("pos_embed")[0]
    return renamed(original, prefix="visual.") | {"logit_scale": torch.ones(1)}


def sam(state: State) -> State:
    return renamed(state, (r"mlp\.fc", "mlp.lin"), prefix="image_encoder.") | {"mask_decoder.weight": torch.ones(2)}


def deit3(state: State) -> State:
    return renamed(state, (r"ls(\d)\.gamma", r"gamma_\1"))


ORIGINALS: dict[str, tuple[EncoderSettings, Callable[[State], State]]] = {
    "dinov2": (settings_of("vit_small_patch14_dinov2"), lambda state: state | {"mask_token": torch.zeros(1, 24)}),
    "dinov2-g": (settings_of("vit_giant_patch14_dinov2", mlp_ratio=2), dinov2_giant),
    "dinov2-reg": (settings_of("vit_small_patch14_reg4_dinov2"), dinov2_registers),
    "dinov3": (settings_of("vit_small_patch16_dinov3"), dinov3),
    "eva02-ti": (settings_of("eva02_tiny_patch14_224"), eva02_tiny),
    "eva02-b": (settings_of("eva02_base_patch14_224"), eva02_base),
    "clip": (settings_of("vit_base_patch16_clip_224"), clip),
    "sam": (settings_of("samvit_base_patch16", neck_chans=16), sam),
    "deit3": (settings_of("deit3_small_patch16_224"), deit3),
}


def scrambled(settings: EncoderSettings) -> tuple[Encoder, State]:
    """An encoder in which no two tensors are equal, and its backbone's tensors."""
    encoder = build_encoder(settings, 1)
    torch.manual_seed(7)
    for parameter in encoder.parameters():
        torch.nn.init.normal_(parameter)
    return encoder, dict(encoder.backbone.state_dict())


def loaded(settings: EncoderSettings, state: State, folder: Path, **changes: Any) -> Encoder:
    torch.save(state, folder / "w.pth")
    return build_encoder(settings.model_copy(update={"weights": str(folder / "w.pth")} | changes), 2)


@pytest.mark.parametrize("wrapper", ["", "module.backbone."])
@pytest.mark.parametrize("name", ORIGINALS)
def test_original_names_are_understood(tmp_path: Path, name: str, wrapper: str) -> None:
    settings, original = ORIGINALS[name]
    source, state = scrambled(settings)
    encoder = loaded(settings, renamed(original(state), prefix=wrapper), tmp_path)
    assert encoder.coverage is not None and encoder.coverage.resized == ()
    for key, tensor in encoder.backbone.state_dict().items():
        torch.testing.assert_close(tensor, source.backbone.state_dict()[key], msg=key)


def test_timms_filter_leaves_the_resize_to_us(tmp_path: Path) -> None:
    """Original names and another grid at once: the table must come out as released, not as timm's filter would resize it."""
    settings, original = ORIGINALS["eva02-b"]
    _, state = scrambled(settings)
    larger = settings.model_copy(update={"patch_size": 16, "image_size": 96})
    results = {}
    for key, tensors in (("timm", state), ("original", original(state))):
        encoder = loaded(larger, tensors, tmp_path)
        assert encoder.coverage is not None
        assert set(encoder.coverage.resized) == {"pos_embed", "patch_embed.proj.weight"}
        results[key] = encoder.backbone.state_dict()
    assert all(torch.equal(tensor, results["timm"][name]) for name, tensor in results["original"].items())
    preserving = loaded(larger, original(state), tmp_path, resize="preserving").backbone.state_dict()
    assert not torch.equal(preserving["pos_embed"], results["timm"]["pos_embed"])


def test_sams_tables_follow_the_image(tmp_path: Path) -> None:
    settings = settings_of("samvit_base_patch16", neck_chans=16, depth=3, window_size=3)
    _, state = scrambled(settings)
    encoder = loaded(settings.model_copy(update={"image_size": 64}), sam(state), tmp_path)
    assert encoder.coverage is not None
    # The third block looks at the whole image, the others at windows, whose tables stay.
    assert set(encoder.coverage.resized) == {"pos_embed", "blocks.2.attn.rel_pos_h", "blocks.2.attn.rel_pos_w"}
    assert encoder.tokens(torch.rand(1, 3, 64, 64)).patches.shape == (1, 64, 16)


def test_convnexts_of_meta_and_of_timm(tmp_path: Path) -> None:
    """Two renamings at once: Meta's names to timm's, and timm's to its feature pyramid's (`stages.0.x` to `stages_0.x`)."""
    settings = settings_of("convnext_atto", patch=None)
    torch.manual_seed(3)
    whole = timm.create_model("convnext_atto").state_dict()
    meta = renamed(
        whole, (r"^stem\.", "downsample_layers.0."), (r"stages\.(\d)\.blocks", r"stages.\1"),
        (r"stages\.(\d)\.downsample", r"downsample_layers.\1"), (r"conv_dw", "dwconv"), (r"mlp\.fc", "pwconv"),
        (r"head\.norm", "norm"), (r"head\.fc", "head"),
    )  # fmt: skip
    for state in (whole, meta):
        encoder = loaded(settings, state, tmp_path)
        assert encoder.coverage is not None
        assert encoder.coverage.unexpected and all("head" in name for name in encoder.coverage.unexpected)
        own = encoder.backbone.state_dict()
        assert own["stages_2.blocks.1.conv_dw.weight"].equal(whole["stages.2.blocks.1.conv_dw.weight"])
        assert own["stem_0.weight"].equal(whole["stem.0.weight"])


@pytest.mark.parametrize(
    "wrapper", ["", "module.", "backbone.", "student.backbone.", "model.", "teacher.", "module.student.backbone."]
)
@pytest.mark.parametrize("arch", ["vit_tiny_patch16_224", "convnext_atto"])
def test_wrappers_are_taken_off(tmp_path: Path, wrapper: str, arch: str) -> None:
    settings = settings_of(arch, *([] if arch.startswith("vit") else [None]))
    _, state = scrambled(settings)
    encoder = loaded(settings, renamed(state, prefix=wrapper) | {"fea.proj_q.0.weight": torch.ones(3)}, tmp_path)
    assert encoder.coverage is not None and encoder.coverage.unexpected == ("fea.proj_q.0.weight",)
    assert all(torch.equal(tensor, state[name]) for name, tensor in encoder.backbone.state_dict().items())


def test_a_segmentors_encoder_is_found_with_its_mask_token(tmp_path: Path, vit_settings: EncoderSettings) -> None:
    source, _ = scrambled(vit_settings)
    segmentor = build_segmentor(source, "linear", 3, 8, seed=0)
    file = tmp_path / "segmentor.safetensors"
    safetensors.torch.save_file(dict(segmentor.state_dict()), file)
    encoder = build_encoder(vit_settings.model_copy(update={"weights": str(file)}), 0)
    assert all(torch.equal(tensor, source.state_dict()[name]) for name, tensor in encoder.state_dict().items())
    assert encoder.coverage is not None
    assert encoder.coverage.unexpected == ("decoder.classifier.bias", "decoder.classifier.weight")


def test_a_distilled_deit_becomes_a_plain_one(tmp_path: Path) -> None:
    """Released recipe: the distillation token and its entry in the table go, and the patch goes from 16 to 14."""
    _, state = scrambled(settings_of("deit_small_distilled_patch16_224", patch=16))
    plain = settings_of("deit_small_patch16_224", patch=14).model_copy(update={"image_size": 84})
    encoder = loaded(plain, state, tmp_path)
    assert encoder.coverage is not None
    assert encoder.coverage.unexpected == ("dist_token",)
    assert set(encoder.coverage.resized) == {"pos_embed", "patch_embed.proj.weight"}
    assert torch.equal(encoder.backbone.pos_embed[:, 0], state["pos_embed"][:, 0])


def test_a_file_with_two_networks_that_fit_is_refused(tmp_path: Path) -> None:
    settings = settings_of("vit_tiny_patch16_224")
    _, state = scrambled(settings)
    both = renamed(state, prefix="student.backbone.") | renamed(state, prefix="teacher.backbone.")
    with pytest.raises(WeightsError, match="two networks that fit, under 'student.backbone.' and 'teacher.backbone.'; save the"):
        loaded(settings, both, tmp_path)


def test_another_architectures_checkpoint_is_refused_with_its_coverage(tmp_path: Path) -> None:
    _, state = scrambled(settings_of("samvit_base_patch16", neck_chans=16))
    with pytest.raises(WeightsError, match=r"w\.pth: fits only in part: \d+ loaded, \d+ missing") as error:
        loaded(settings_of("eva02_tiny_patch14_224"), sam(state), tmp_path)
    assert "\n" not in str(error.value)
