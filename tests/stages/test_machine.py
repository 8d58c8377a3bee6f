"""Weights as a stage sees them: a file with an absolute path, wherever they came from."""

from __future__ import annotations

from pathlib import Path

import pytest

from gkd_core.data.catalog.load import load_catalog
from gkd_core.errors import PlatformError
from gkd_core.settings import EncoderSettings, Settings
from gkd_core.stages import find_run
from gkd_core.stages.machine import absolute_weights
from gkd_core.stages.run import Context


@pytest.fixture
def context(tmp_path: Path) -> Context:
    settings = Settings()
    return Context(settings, load_catalog(), find_run(settings, "report", None), tmp_path)


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
