"""From settings to encoders: seeds, and what is refused with which words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from gkd_core.errors import SettingsError, WeightsError
from gkd_core.models.build import build_encoder, parameter_count
from gkd_core.models.encoder import Encoder
from gkd_core.settings import EncoderSettings


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
