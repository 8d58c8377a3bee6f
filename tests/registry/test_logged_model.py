"""The student as a logged model gives, loaded back, the logits of the student, and served, its label maps."""

from __future__ import annotations

import base64
import io
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import mlflow.models
import mlflow.pyfunc
import mlflow.pytorch
import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image

from gkd_core.models.build import build_encoder
from gkd_core.models.segmentor import build_segmentor, load_segmentor
from gkd_core.predict.manifest import Bundle
from gkd_core.predict.student import Segmentor
from gkd_core.records import MANIFEST, SegmentorCheckpoint, sha256_of
from gkd_core.registry.logged_model import example_images, log_segmentor
from gkd_core.registry.served_student import SIGNATURE
from gkd_core.settings import EncoderSettings, Settings, settings_from_tree
from gkd_core.stages import Recipe
from gkd_core.stages.bundle import describe
from gkd_core.tracking.flow_runs import Tracking
from tests.predict.conftest import noise

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


def bundle(folder: Path) -> Bundle:
    small = {"evaluate": {"window": [32, 32], "stride": [16, 16]}}
    return describe(folder, Recipe.of(settings_from_tree(small)), folder)


def test_logged_student_loads_back(segmentor_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    tracking = Tracking(Settings(), tmp_path)
    with tracking.run("learn-task", {}) as run_id:
        model_id = log_segmentor(
            tracking.client, tracking.experiment, run_id, segmentor_folder, bundle(segmentor_folder), EXAMPLE
        )
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
    example = example_images(description.load_input_example(str(artifacts)))
    assert example.shape == EXAMPLE.shape
    assert (example - EXAMPLE).abs().mean() < 0.2, "lossy, but the image"
    assert description.signature == SIGNATURE
    assert description.model_size_bytes > (artifacts / "data" / "model.pt2").stat().st_size
    assert {path.name for path in (artifacts / "checkpoint").iterdir()} == {MANIFEST, "w.safetensors"}
    assert not list(artifacts.rglob("*.pkl")), "no pickle"
    assert str(Path.cwd()) not in (artifacts / "MLmodel").read_text(), "nothing of this machine"
    served = mlflow.pyfunc.load_model(f"models:/{model_id}", model_config={"device": "cpu"})
    image = noise(45, 70)
    content = io.BytesIO()
    Image.fromarray(image).save(content, "PNG")
    rows = [{"image": base64.b64encode(content.getvalue()).decode()}, {"pixels": image.tolist()}]
    expected = Segmentor.of_segmentor(bundle(segmentor_folder), segmentor_folder, torch.device("cpu")).predict(image)
    for answer in served.predict(rows):
        label_map = Image.open(io.BytesIO(base64.b64decode(answer["label_map"])))
        assert np.array_equal(np.asarray(label_map), expected.labels)
        assert (answer["height"], answer["width"], answer["classes"]) == (45, 70, ["a", "b", "c"])


def test_students_of_stages_that_run_side_by_side_are_all_logged(
    segmentor_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    tracking = Tracking(Settings(), tmp_path)

    def log(name: str) -> str:
        with tracking.run(name, {}) as run_id:
            return log_segmentor(
                tracking.client, tracking.experiment, run_id, segmentor_folder, bundle(segmentor_folder), EXAMPLE
            )

    with ThreadPoolExecutor(3) as threads:
        models = list(threads.map(log, ["one", "two", "three"]))
    assert {tracking.client.get_logged_model(model).status for model in models} == {"READY"}
