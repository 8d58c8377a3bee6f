"""Weights as a stage sees them: a file with an absolute path, wherever they came from."""

from __future__ import annotations

from pathlib import Path

import pytest

from gkd_core.errors import PlatformError, SettingsError
from gkd_core.settings import EncoderSettings, Settings, load_settings
from gkd_core.stages import Recipe
from gkd_core.stages.machine import absolute_weights, device_of
from gkd_core.stages.work import Context


@pytest.fixture
def context(tmp_path: Path) -> Context:
    settings = Settings()
    return Context(Recipe.of(settings), Recipe.of(settings).find("report"), tmp_path)


@pytest.mark.parametrize("suffix", [".safetensors", ".pth", ".pt", ".bin"])
def test_files_are_seen_from_the_workspace(context: Context, suffix: str) -> None:
    encoder = EncoderSettings(arch="resnet50", weights=f"w/x{suffix}")
    assert absolute_weights(encoder, context).weights == str(context.workspace / f"w/x{suffix}")
    elsewhere = EncoderSettings(arch="resnet50", weights=f"/w/x{suffix}")
    assert absolute_weights(elsewhere, context) == elsewhere


@pytest.mark.parametrize("weights", ["random", "hub", "demo", "package:efficientnet-lite0"])
def test_names_stay_names(context: Context, weights: str) -> None:
    encoder = EncoderSettings(arch="resnet50", weights=weights)
    assert absolute_weights(encoder, context) is encoder


def test_an_address_without_a_store_says_what_to_set(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    encoder = EncoderSettings(arch="resnet50", weights="models:/gkd/3")
    with pytest.raises(PlatformError, match=r"mlflow\.db: no MLflow store here; set MLFLOW_TRACKING_URI"):
        absolute_weights(encoder, context)
    assert not list(context.workspace.rglob("*.db")), "looking makes no store"


@pytest.mark.parametrize("workers", [0, 2])
def test_a_gpu_that_is_not_there_is_refused_by_the_key(workers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    settings = load_settings(None, "demo", ["compute.device=cuda", f"compute.workers={workers}"])
    with pytest.raises(SettingsError, match=r"^compute\.device: given 'cuda', but torch finds no GPU here .*auto or cpu$"):
        device_of(settings)


@pytest.mark.parametrize(("device", "there", "wanted"), [("auto", False, "cpu"), ("auto", True, "cuda"), ("cpu", True, "cpu")])
def test_the_device_is_one_of_this_machine(device: str, there: bool, wanted: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: there)
    assert device_of(load_settings(None, "demo", [f"compute.device={device}"])) == wanted


@pytest.mark.parametrize("device", ["cuda:3", "mps", "gpu", "0"])
def test_a_device_of_another_name_is_refused_by_the_key(device: str) -> None:
    with pytest.raises(SettingsError, match=r"^compute\.device: given "):
        load_settings(None, "demo", [f"compute.device={device}"])
