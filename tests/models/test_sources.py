"""Every source of weights gives the encoder what lies there, on the encoder's grid, and says how well it fits."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import safetensors.torch
import timm
import torch
from torch import Tensor

from gkd_core.errors import WeightsError
from gkd_core.models.build import build_encoder
from gkd_core.models.weights import DEMO_TEACHER
from gkd_core.settings import EncoderSettings, load_settings

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
