"""Weights as a stage sees them: a file with an absolute path, wherever they came from."""

from __future__ import annotations

from pathlib import Path

import pytest

from gkd_core.errors import PlatformError
from gkd_core.settings import EncoderSettings
from gkd_core.stages.machine import absolute_weights


@pytest.mark.parametrize("suffix", [".safetensors", ".pth", ".pt", ".bin"])
def test_files_are_seen_from_the_workspace(tmp_path: Path, suffix: str) -> None:
    encoder = EncoderSettings(arch="resnet50", weights=f"w/x{suffix}")
    assert absolute_weights(encoder, tmp_path).weights == str(tmp_path / f"w/x{suffix}")
    elsewhere = EncoderSettings(arch="resnet50", weights=f"/w/x{suffix}")
    assert absolute_weights(elsewhere, tmp_path) == elsewhere


@pytest.mark.parametrize("weights", ["random", "hub", "demo", "package:efficientnet-lite0"])
def test_names_stay_names(tmp_path: Path, weights: str) -> None:
    encoder = EncoderSettings(arch="resnet50", weights=weights)
    assert absolute_weights(encoder, tmp_path) is encoder


def test_an_address_without_a_store_says_what_to_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    encoder = EncoderSettings(arch="resnet50", weights="models:/gkd/3")
    with pytest.raises(PlatformError, match=r"mlflow\.db: no MLflow store here; set MLFLOW_TRACKING_URI"):
        absolute_weights(encoder, tmp_path)
    assert not list(tmp_path.rglob("*.db")), "looking makes no store"
