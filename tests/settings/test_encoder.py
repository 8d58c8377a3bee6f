"""One text says an encoder: its architecture and its weights."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from gkd_core.errors import SettingsError
from gkd_core.settings import EncoderSettings, dump_settings, load_settings, settings_from_tree


@pytest.mark.parametrize(
    ("spec", "arch", "weights"),
    [
        ("vit_base_patch14_dinov2@hub", "vit_base_patch14_dinov2", "hub"),
        ("vit_base_patch14_dinov2.lvd142m@hub", "vit_base_patch14_dinov2.lvd142m", "hub"),
        ("deit_small_patch16_224@/path/x.safetensors", "deit_small_patch16_224", "/path/x.safetensors"),
        ("vit_small_patch16_224@models:/gkd-student@champion", "vit_small_patch16_224", "models:/gkd-student@champion"),
        ("resnet50@random", "resnet50", "random"),
        ("resnet50", "resnet50", "random"),
    ],
)
def test_a_text_stands_for_architecture_and_weights(spec: str, arch: str, weights: str) -> None:
    assert EncoderSettings.model_validate(spec) == EncoderSettings(arch=arch, weights=weights)
    overridden = load_settings(None, "demo", [f"teacher={spec}"])
    assert overridden.teacher == EncoderSettings(arch=arch, weights=weights), "nothing of the demo's teacher is left"
    assert overridden.student == load_settings(None, "demo").student


def test_later_overrides_go_on_from_a_text() -> None:
    settings = load_settings(
        None, "demo", ["teacher=vit_base_patch14_dinov2@hub", "teacher.patch_size=16", "teacher.options.drop_path_rate=0.1"]
    )
    assert settings.teacher == EncoderSettings(
        arch="vit_base_patch14_dinov2", weights="hub", patch_size=16, options={"drop_path_rate": 0.1}
    )
    assert load_settings(None, "demo", ["teacher.patch_size=16", "teacher=resnet50@hub"]).teacher.patch_size is None


def test_a_file_may_hold_the_text_and_is_written_in_full(tmp_path: Path) -> None:
    params = tmp_path / "params.yaml"
    params.write_text("teacher: resnet50@hub\n")
    settings = load_settings(params, overrides=["teacher.token_strides=[16, 32]"])
    assert settings.teacher == EncoderSettings(arch="resnet50", weights="hub", token_strides=(16, 32))
    params.write_text(dump_settings(settings))
    assert "weights: hub" in params.read_text()
    assert load_settings(params) == settings


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["teacher=@hub"], "teacher=@hub: the value of 'teacher' is not valid YAML"),
        (["teacher='@hub'"], "teacher: given '@hub'; an encoder in one line is ARCH@WEIGHTS, such as"),
        (["teacher=resnet50@"], "teacher: given 'resnet50@'; an encoder in one line is ARCH@WEIGHTS, such as"),
        (["teacher=resnet50@", "teacher.patch_size=8"], "teacher.patch_size=8: given 'resnet50@'; an encoder in one line"),
        (["teacher=resnet50@hubb"], "teacher.weights: given 'hubb'; allowed: random, hub, demo, hub:ARCH.TAG, package:NAME, a f"),
        (["teacher=resnet50@hub", "teacher.patchsize=8"], "teacher.patchsize: unknown key .*did you mean 'patch_size'"),
        (["method=gkd", "method.deeper=8"], "'method' is 'gkd', it has no keys below it"),
    ],
)
def test_texts_that_say_no_encoder_are_refused(overrides: list[str], message: str) -> None:
    with pytest.raises(SettingsError, match=message) as error:
        load_settings(None, "demo", overrides)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("weights", "file", "uri"),
    [
        ("random", None, None),
        ("package:efficientnet-lite0", None, None),
        ("w/x.pt", Path("w/x.pt"), None),
        ("/w/x.bin", Path("/w/x.bin"), None),
        ("models:/gkd/3", None, "models:/gkd/3"),
        ("runs:/abc/w.safetensors", None, "runs:/abc/w.safetensors"),
    ],
)
def test_where_weights_lie(weights: str, file: Path | None, uri: str | None) -> None:
    settings = settings_from_tree({"student": f"resnet50@{weights}"}).student
    assert (settings.weights_file, settings.weights_uri) == (file, uri)


@pytest.mark.parametrize("key", ["pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "checkpoint_path", "cache_dir"])
def test_no_option_has_timm_read_or_fetch_weights(key: str) -> None:
    """A manifest of another's has options too: weights come by `weights` alone, past our checks."""
    with pytest.raises(ValidationError, match=f"{key}: has timm read or fetch weights past all checks"):
        EncoderSettings.model_validate({"arch": "deit_small_patch16_224", "options": {"depth": 2, key: "w.pth"}})
