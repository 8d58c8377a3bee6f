"""The student as a logged model gives, loaded back, the logits of the student."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import mlflow.models
import mlflow.pytorch
import pytest
import safetensors.torch
import torch

from gkd_core.models.build import build_encoder
from gkd_core.models.segmentor import build_segmentor, load_segmentor
from gkd_core.records import MANIFEST, SegmentorCheckpoint, sha256_of
from gkd_core.registry.logged_model import log_segmentor
from gkd_core.settings import EncoderSettings, Settings
from gkd_core.tracking.flow_runs import Tracking

EXAMPLE = torch.arange(2 * 3 * 32 * 32).remainder(17).div(16).reshape(2, 3, 32, 32)


@pytest.fixture
def segmentor_folder(tmp_path: Path, vit_settings: EncoderSettings) -> Path:
    folder = tmp_path / "segmentor"
    folder.mkdir()
    segmentor = build_segmentor(build_encoder(vit_settings, seed=0), "linear", 3, 8, seed=0)
    safetensors.torch.save_file(
        {name: tensor.contiguous() for name, tensor in segmentor.state_dict().items()}, folder / "w.safetensors"
    )
    SegmentorCheckpoint(
        encoder=vit_settings,
        decoder="linear",
        decoder_width=8,
        taxonomy="toy",
        classes=("a", "b", "c"),
        source="toy",
        method="gkd",
        weights="w.safetensors",
        sha256=sha256_of(folder / "w.safetensors"),
        seed=0,
        updates=4,
        encoder_frozen=True,
    ).write(folder / MANIFEST)
    return folder


def test_logged_student_loads_back(segmentor_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    tracking = Tracking(Settings(), tmp_path)
    with tracking.run("learn-task", {}) as run_id:
        model_id = log_segmentor(tracking.client, tracking.experiment, run_id, segmentor_folder, EXAMPLE)
    logged = tracking.client.get_logged_model(model_id)
    assert logged.status == "READY"
    assert logged.source_run_id == run_id
    monkeypatch.setenv("MLFLOW_TRACKING_URI", tracking.address)
    program = mlflow.pytorch.load_model(f"models:/{model_id}")
    images = torch.rand(5, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(program(images), load_segmentor(segmentor_folder)(images))
    artifacts = Path(logged.artifact_location.removeprefix("file://"))
    description = mlflow.models.Model.load(str(artifacts))
    assert torch.equal(torch.from_numpy(description.load_input_example(str(artifacts))["images"]), EXAMPLE)
    assert description.signature.inputs.inputs[0].shape == (-1, 3, 32, 32)
    assert {path.name for path in (artifacts / "checkpoint").iterdir()} == {MANIFEST, "w.safetensors"}


def test_students_of_stages_that_run_side_by_side_are_all_logged(
    segmentor_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    tracking = Tracking(Settings(), tmp_path)

    def log(name: str) -> str:
        with tracking.run(name, {}) as run_id:
            return log_segmentor(tracking.client, tracking.experiment, run_id, segmentor_folder, EXAMPLE)

    with ThreadPoolExecutor(3) as threads:
        models = list(threads.map(log, ["one", "two", "three"]))
    assert {tracking.client.get_logged_model(model).status for model in models} == {"READY"}
