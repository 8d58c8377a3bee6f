"""Weights by MLflow address, from a store with one logged student."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import pytest
import safetensors.torch
import torch
from mlflow.tracking import MlflowClient

from gkd_core.errors import WeightsError
from gkd_core.models.build import build_encoder
from gkd_core.models.segmentor import build_segmentor
from gkd_core.paths import RUNS
from gkd_core.records import MANIFEST, SegmentorCheckpoint, sha256_of
from gkd_core.registry.logged_model import log_files
from gkd_core.settings import EncoderSettings, Settings
from gkd_core.stages import Recipe
from gkd_core.stages.machine import absolute_weights
from gkd_core.stages.work import Context
from gkd_core.storage.mlflow_weights import CHECKPOINT, fetch_weights
from gkd_core.storage.model_files import digests_of, tags_of
from gkd_core.tracking.flow_runs import Tracking

WEIGHTS = "segmentor.safetensors"


class Store(NamedTuple):
    """A project whose store holds one student, logged and registered, and what it was."""

    project: Path
    client: MlflowClient
    address: str
    run_id: str
    model_id: str
    tensors: dict[str, torch.Tensor]


def write_checkpoint(folder: Path, encoder: EncoderSettings, sha256: str | None = None) -> dict[str, torch.Tensor]:
    folder.mkdir(parents=True)
    state = build_segmentor(build_encoder(encoder, seed=3), "linear", 3, 8, seed=0).state_dict()
    tensors = {name: tensor.contiguous() for name, tensor in state.items()}
    safetensors.torch.save_file(tensors, folder / WEIGHTS)
    SegmentorCheckpoint(
        encoder=encoder, decoder="linear", decoder_width=8, taxonomy="toy", classes=("a", "b", "c"), source="toy", method="gkd",
        weights=WEIGHTS, sha256=sha256 or sha256_of(folder / WEIGHTS), seed=0, updates=4, encoder_frozen=True,
    ).write(folder / MANIFEST)  # fmt: skip
    return tensors


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, vit_settings: EncoderSettings) -> Store:
    project = tmp_path_factory.mktemp("project")
    with pytest.MonkeyPatch.context() as environment:
        environment.delenv("MLFLOW_TRACKING_URI", raising=False)
        tracking = Tracking(Settings(), project)
    client = tracking.client
    tensors = write_checkpoint(project / "model" / CHECKPOINT, vit_settings)
    with tracking.run("learn-task", {}) as run_id:
        logged = client.create_logged_model(tracking.experiment, "student-toy", run_id)
        log_files(client, logged.model_id, project / "model")
        client.finalize_logged_model(logged.model_id, "READY")
        client.log_artifact(run_id, str(project / "model" / CHECKPOINT / WEIGHTS), "files")
    client.create_registered_model("gkd-student")
    client.create_model_version("gkd-student", logged.artifact_location, run_id, tags_of(digests_of(project / "model")))
    client.set_registered_model_alias("gkd-student", "champion", "1")
    return Store(project, client, tracking.address, run_id, logged.model_id, tensors)


@pytest.mark.parametrize(
    "uri",
    ["models:/{model_id}", "models:/gkd-student/1", "models:/gkd-student@champion", "runs:/{run_id}/student-toy"],
)
def test_every_address_of_a_student_gives_its_weights(store: Store, tmp_path: Path, uri: str) -> None:
    file = fetch_weights(uri.format(**store._asdict()), store.address, tmp_path)
    fetched = safetensors.torch.load_file(file)
    assert fetched.keys() == store.tensors.keys()
    assert all(torch.equal(tensor, store.tensors[name]) for name, tensor in fetched.items())
    assert file.name == f"{sha256_of(file)}.safetensors"
    assert [path.name for path in tmp_path.iterdir()] == [file.name], "nothing else is left"


def test_an_artifact_of_a_run_is_a_file_by_its_path(store: Store, tmp_path: Path) -> None:
    file = fetch_weights(f"runs:/{store.run_id}/files/{WEIGHTS}", store.address, tmp_path)
    assert safetensors.torch.load_file(file).keys() == store.tensors.keys()


def test_what_is_there_is_not_fetched_again(store: Store, tmp_path: Path) -> None:
    first = fetch_weights(f"models:/{store.model_id}", store.address, tmp_path)
    before = first.stat().st_mtime_ns
    assert fetch_weights("models:/gkd-student@champion", store.address, tmp_path) == first
    assert first.stat().st_mtime_ns == before


def test_a_stage_builds_the_encoder_of_a_logged_student(
    store: Store, vit_settings: EncoderSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    settings = vit_settings.model_copy(update={"weights": "models:/gkd-student@champion"})
    with pytest.raises(WeightsError, match="champion: only a stage looks an MLflow address up"):
        build_encoder(settings, 0)
    run = Recipe.of(Settings()).find("report")
    found = absolute_weights(settings, Context(Recipe.of(Settings()), run, store.project))
    assert Path(found.weights).parent == (store.project / RUNS / "weights").resolve()
    encoder = build_encoder(found, 0)
    assert all(torch.equal(tensor, store.tensors[f"encoder.{name}"]) for name, tensor in encoder.state_dict().items())
    assert encoder.coverage is not None and encoder.coverage.missing == ()


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("models:/m-0123", "models:/m-0123: no weights at this address of sqlite"),
        ("models:/gkd-student/7", "gkd-student/7: no weights at this address"),
        ("models:/gkd-student@nobody", "gkd-student@nobody: no weights at this address"),
        ("runs:/0123/model", "runs:/0123/model: no weights at this address"),
        ("models:/gkd-student", "models:/gkd-student: expected models:/NAME/VERSION, models:/NAME@ALIAS"),
        ("models:/gkd-student/Production", "expected models:/NAME/VERSION"),
    ],
)
def test_addresses_with_nothing_behind_them_are_named(store: Store, tmp_path: Path, uri: str, message: str) -> None:
    with pytest.raises(WeightsError, match=message) as error:
        fetch_weights(uri, store.address, tmp_path)
    assert "\n" not in str(error.value)
    assert not list(tmp_path.iterdir())


def test_weights_that_are_not_the_manifests_are_refused(store: Store, tmp_path: Path, vit_settings: EncoderSettings) -> None:
    write_checkpoint(tmp_path / "model" / CHECKPOINT, vit_settings, sha256="0" * 64)
    run = store.client.get_run(store.run_id)
    logged = store.client.create_logged_model(run.info.experiment_id, "student-bad", store.run_id)
    log_files(store.client, logged.model_id, tmp_path / "model")
    store.client.finalize_logged_model(logged.model_id, "READY")
    with pytest.raises(WeightsError, match="its weights are not those that were logged; log the model again"):
        fetch_weights(f"models:/{logged.model_id}", store.address, tmp_path / "weights")
    assert not list((tmp_path / "weights").iterdir())
