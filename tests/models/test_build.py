"""From settings to encoders: seeds, and what is refused with which words."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import timm
import torch
from torch import Tensor

from gkd_core.errors import SettingsError, WeightsError
from gkd_core.models.build import build_encoder, parameter_count
from gkd_core.models.encoder import Encoder
from gkd_core.models.weights import DEMO_TEACHER
from gkd_core.settings import EncoderSettings, load_settings


def test_random_weights_are_a_function_of_the_seed_and_leave_the_global_state(vit_settings: EncoderSettings) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first = build_encoder(vit_settings, 1).state_dict()
    assert torch.equal(torch.rand(3), expected)
    assert all(torch.equal(tensor, first[name]) for name, tensor in build_encoder(vit_settings, 1).state_dict().items())
    assert any(not torch.equal(tensor, first[name]) for name, tensor in build_encoder(vit_settings, 2).state_dict().items())


def test_normalisation_belongs_to_the_encoder(vit: Encoder) -> None:
    images = torch.rand(1, 3, 8, 8)
    torch.testing.assert_close(vit.normalise(images), images * 2 - 1)  # this ViT: mean and deviation 0.5
    assert not {"mean", "std"} & vit.state_dict().keys()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"arch": "vit_tiny_patch17"}, r"arch: timm \S+ has no model 'vit_tiny_patch17'; try vit_tiny_patch16"),
        ({"options": {"nonsense": 3}}, r"options: vit_tiny_patch16_224 refuses .*nonsense"),
        ({"options": {"embed_dim": 24, "num_heads": 5}}, r"options: vit_tiny_patch16_224 refuses .*num_heads"),
        ({"arch": "beit_base_patch16_224", "options": {}}, "no map of stride 4"),
    ],
)
def test_impossible_architectures_are_refused_in_one_line(
    vit_settings: EncoderSettings, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(SettingsError, match=message) as error:
        build_encoder(vit_settings.model_copy(update=change), 0)
    assert "\n" not in str(error.value)


def test_hub_weights_that_cannot_be_had_say_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(WeightsError, match="hub: no weights for vit_tiny_patch16_224"):
        build_encoder(EncoderSettings(arch="vit_tiny_patch16_224", weights="hub"), 0)


@pytest.mark.parametrize("prefix", ["", "backbone."])
def test_files_of_ours_and_of_others_load(vit_settings: EncoderSettings, tmp_path: Path, prefix: str) -> None:
    """Ours name the whole encoder's tensors, `mask_token` too; others' the backbone's alone. Half precision is widened."""
    source = build_encoder(vit_settings, 1)
    state = source.state_dict() if prefix else source.get_submodule("backbone").state_dict()
    safetensors.torch.save_file({name: tensor.half() for name, tensor in state.items()}, tmp_path / "w.safetensors")
    loaded = build_encoder(vit_settings.model_copy(update={"weights": str(tmp_path / "w.safetensors")}), 2)
    own = dict(loaded.state_dict())
    if not prefix:
        del own["mask_token"]
    for name, tensor in own.items():
        assert tensor.dtype == torch.float32
        torch.testing.assert_close(tensor, source.state_dict()[name], atol=1e-3, rtol=1e-3)


def test_parameter_count_counts_scalars() -> None:
    assert parameter_count(torch.nn.Linear(3, 5)) == 20


ARCH = "vit_tiny_patch16_224"


@pytest.fixture
def state() -> dict[str, Tensor]:
    torch.manual_seed(4)
    return dict(timm.create_model(ARCH).state_dict())


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, state: dict[str, Tensor]) -> list[str]:
    """A hub that holds one checkpoint, and the names under which it was asked for it."""
    asked: list[str] = []

    def fetch(name: str, *rest: object, **options: object) -> dict[str, Tensor]:
        asked.append(name)
        return dict(state)

    monkeypatch.setattr("timm.models._builder.load_state_dict_from_hf", fetch)
    return asked


@pytest.mark.parametrize("suffix", [".safetensors", ".pth", ".pt", ".bin"])
def test_a_file_of_timms_loads_with_its_coverage(
    tmp_path: Path, state: dict[str, Tensor], suffix: str, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / f"w{suffix}"
    if suffix == ".safetensors":
        safetensors.torch.save_file(state, file)
    else:
        torch.save(state, file)
    with caplog.at_level(logging.INFO, logger="gkd_core"):
        encoder = build_encoder(EncoderSettings.model_validate(f"{ARCH}@{file}"), 0)
    assert all(torch.equal(tensor, state[name]) for name, tensor in encoder.backbone.state_dict().items())
    report = "150 loaded, 0 missing, 0 of another shape, 2 unexpected"
    assert str(encoder.coverage) == report
    assert f"{file}: {report}" in caplog.messages


def test_random_weights_have_no_coverage() -> None:
    assert build_encoder(EncoderSettings.model_validate("resnet10t"), 0).coverage is None


def test_the_hubs_weights_are_brought_to_our_grid_by_our_method(hub: list[str], state: dict[str, Tensor], tmp_path: Path) -> None:
    """timm would resize them itself when asked for another patch: by another method than the released one."""
    torch.save(state, tmp_path / "w.pth")
    grid = {"arch": ARCH, "patch_size": 14, "image_size": 224}
    online = build_encoder(EncoderSettings.model_validate(grid | {"weights": "hub"}), 0)
    local = build_encoder(EncoderSettings.model_validate(grid | {"weights": str(tmp_path / "w.pth")}), 0)
    assert hub == [f"timm/{timm.get_pretrained_cfg(ARCH).architecture}.{timm.get_pretrained_cfg(ARCH).tag}"]
    assert all(torch.equal(tensor, local.state_dict()[name]) for name, tensor in online.state_dict().items())
    assert online.coverage is not None
    assert set(online.coverage.resized) == {"pos_embed", "patch_embed.proj.weight"}
    options = {"num_classes": 0, "patch_size": 14, "img_size": 224, "pretrained": True}
    assert not torch.equal(timm.create_model(ARCH, **options).pos_embed, online.backbone.pos_embed)


def test_the_hubs_weights_of_another_name_lose_what_the_architecture_has_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """DeiT's distilled weights in the plain DeiT, as the release's students start: the token goes, and its position."""
    stored = dict(timm.create_model("deit_tiny_distilled_patch16_224").state_dict())
    monkeypatch.setattr("timm.models._builder.load_state_dict_from_hf", lambda *rest, **options: dict(stored))
    plain = {"arch": "deit_tiny_patch16_224", "weights": "hub:deit_tiny_distilled_patch16_224.fb_in1k"}
    encoder = build_encoder(EncoderSettings.model_validate(plain), 0)
    assert encoder.coverage is not None
    assert (encoder.coverage.missing, encoder.coverage.resized) == ((), ("pos_embed",))
    assert "dist_token" in encoder.coverage.unexpected
    table = stored["pos_embed"]
    torch.testing.assert_close(encoder.backbone.pos_embed, torch.cat([table[:, :1], table[:, 2:]], dim=1), atol=1e-6, rtol=0)
    with pytest.raises(SettingsError, match=r"weights: timm .* has no model 'deit_tinny'; try "):
        build_encoder(EncoderSettings.model_validate(plain | {"weights": "hub:deit_tinny"}), 0)


def test_the_inputs_are_normalised_as_the_setting_says() -> None:
    """timm states CLIP's mean for EVA-02; the release has ImageNet's."""
    tiny = {"arch": "eva02_tiny_patch14_224", "options": {"depth": 1}}
    own, imagenet = (
        build_encoder(EncoderSettings.model_validate(tiny | {"normalisation": name}), 0) for name in ("own", "imagenet")
    )
    assert own.mean.flatten().tolist() == pytest.approx([0.48145466, 0.4578275, 0.40821073])
    assert imagenet.mean.flatten().tolist() == pytest.approx([0.485, 0.456, 0.406])
    assert imagenet.std.flatten().tolist() == pytest.approx([0.229, 0.224, 0.225])


def test_the_global_random_state_is_left_alone(hub: list[str]) -> None:
    torch.manual_seed(9)
    expected = torch.rand(2)
    torch.manual_seed(9)
    build_encoder(EncoderSettings(arch=ARCH, weights="hub"), 0)
    assert torch.equal(torch.rand(2), expected)


def test_the_demos_teacher_is_the_shipped_file() -> None:
    encoder = build_encoder(load_settings(None, "demo").teacher, 0)
    stored = safetensors.torch.load(DEMO_TEACHER.read_bytes())
    assert {name: tensor.shape for name, tensor in encoder.state_dict().items()} == {
        name: tensor.shape for name, tensor in stored.items()
    }
    assert all(torch.equal(tensor, stored[name].float()) for name, tensor in encoder.state_dict().items())


def test_a_part_is_taken_where_it_is_allowed(tmp_path: Path, state: dict[str, Tensor]) -> None:
    part = {name: tensor for name, tensor in state.items() if not name.startswith("blocks.11.")}
    torch.save(part, tmp_path / "w.pth")
    settings = EncoderSettings(arch=ARCH, weights=str(tmp_path / "w.pth"))
    with pytest.raises(WeightsError, match=r"138 loaded, 12 missing.*92% of the model is filled, at least 100% is asked for"):
        build_encoder(settings, 0)
    encoder = build_encoder(settings.model_copy(update={"min_coverage": 0.9}), 0)
    assert encoder.coverage is not None
    assert encoder.coverage.share == pytest.approx(0.92)
    assert all(name.startswith("blocks.11.") for name in encoder.coverage.missing)


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    torch.save({}, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match=r"w\.pth: holds no tensors"):
        build_encoder(EncoderSettings(arch=ARCH, weights=str(tmp_path / "w.pth")), 0)
