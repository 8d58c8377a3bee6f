"""A registered model, fetched fresh, has the files that were logged, and its code answers as its own weights do."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

import mlflow.artifacts
import pandas as pd
import torch
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.models import Model
from torch import Tensor

from gkd_core.errors import PlatformError
from gkd_core.files import atomic_folder
from gkd_core.messages import one_line
from gkd_core.models.segmentor import load_segmentor
from gkd_core.predict.json_form import answered, asked_picture
from gkd_core.records import MANIFEST, SegmentorCheckpoint
from gkd_core.registry.logged_model import DATA, example_images
from gkd_core.registry.sandboxed_program import program_logits
from gkd_core.registry.sandboxed_serving import served_answer, written
from gkd_core.registry.served_student import BUNDLE, open_logged
from gkd_core.registry.signatures import verify
from gkd_core.registry.versions import SHA256_TAG, UNSIGNED, Registry
from gkd_core.storage.mlflow_weights import CHECKPOINT
from gkd_core.storage.model_files import LOG_AGAIN, check_files, recorded

TOLERANCE = 1e-4  # logits; the exported program may order sums otherwise
PROGRAM = Path(DATA) / "model.pt2"  # where MLflow puts it


def check_served(registry: Registry, name: str, wanted: str, scratch: Path, public_key: Path | None = None) -> int:
    """Fetch `models:/name@wanted`, and hold what its program and what serves it make of the input example against what its
    safetensors do.

    Nothing is opened before every file's digest is checked; what is code runs in a sandbox.

    Args:
        wanted: version or alias.
        scratch: folder to fetch it to; emptied afterwards.
        public_key: of whom it must be signed by, where that is asked for.

    Returns:
        the number of images in the example.

    Raises:
        PlatformError: it cannot be fetched or loaded, is not the student that the registry says, or answers otherwise.
        WeightsError: a file of it was changed, added or removed, or its signature does not fit.
    """
    version = registry.version(name, wanted)
    label = f"{name} version {version.version}"
    target = scratch / f"smoke-{name}-{version.version}"
    target.mkdir(parents=True)
    try:
        folder = _fetched(registry, version, target / "model", public_key)
        if not (folder / BUNDLE).is_file():
            raise PlatformError(f"{label}: logged by an older version, and cannot be served; {LOG_AGAIN}")
        rows: Any = Model.load(str(folder)).load_input_example(str(folder))
        _check_program(folder, example_images(rows), _empty(target / "program"), label)
        _check_answer(folder, rows, _empty(target / "serving"), label)
        return len(rows)
    except (MlflowException, OSError, RuntimeError, TypeError, ValueError, KeyError) as error:
        reason = one_line(error, 300)
        raise PlatformError(f"{label}: it cannot be loaded from the registry ({reason})") from error
    finally:
        shutil.rmtree(target, ignore_errors=True)


def fetch_checked(registry: Registry, name: str, wanted: str, target: Path, public_key: Path | None = None) -> ModelVersion:
    """Fetch the files of `models:/name@wanted` to the folder `target`, whole or not at all, once each has the digest on record.

    Raises:
        GkdError: something is there already, or as `check_served`. Nothing of the model is opened but its manifest.
    """
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise PlatformError(f"{target}: is there already, and is not empty; choose another folder")
    version = registry.version(name, wanted)
    with tempfile.TemporaryDirectory() as temporary, atomic_folder(target) as unfinished:
        try:
            folder = _fetched(registry, version, Path(temporary), public_key)
        except MlflowException as error:
            raise PlatformError(f"{name} version {version.version}: it cannot be fetched ({one_line(error, 300)})") from None
        shutil.copytree(folder, unfinished, dirs_exist_ok=True, copy_function=shutil.copyfile)
    return version


def _fetched(registry: Registry, version: ModelVersion, target: Path, public_key: Path | None) -> Path:
    """The files of a version, below `target`, each as it was logged, and of the weights that were registered."""
    label = f"{version.name} version {version.version}"
    location = registry.client.get_logged_model(registry.model_id(version)).artifact_location
    folder = Path(
        mlflow.artifacts.download_artifacts(artifact_uri=str(location), dst_path=str(target), tracking_uri=registry.address)
    )
    check_files(folder, recorded(version.tags), label, UNSIGNED)
    if public_key is not None:
        verify(folder, public_key, label, UNSIGNED)
    if SegmentorCheckpoint.read(folder / CHECKPOINT / MANIFEST).sha256 != version.tags.get(SHA256_TAG):
        raise PlatformError(
            f"{label}: its weights are not those that were registered; restore its artifacts, or register it again"
        )
    return folder


def _check_program(folder: Path, example: Tensor, scratch: Path, label: str) -> None:
    given = program_logits(folder / PROGRAM, example, scratch, label)
    with torch.inference_mode():
        expected = load_segmentor(folder / CHECKPOINT)(example)
    if given.shape != expected.shape or not torch.allclose(given, expected, atol=TOLERANCE, rtol=TOLERANCE):
        raise PlatformError(f"{label}: its pt2 program does not give the logits of its own safetensors; log the model again")


def _check_answer(folder: Path, rows: pd.DataFrame, scratch: Path, label: str) -> None:
    student = open_logged(folder / BUNDLE, folder / CHECKPOINT, "cpu")
    pictures = (asked_picture(row, f"{label}: input example") for row in rows.to_dict(orient="records"))
    expected = written([answered(student.predict(picture)) for picture in pictures])
    if served_answer(folder, len(expected) + 1, scratch, label) != expected:
        raise PlatformError(f"{label}: served by MLflow it does not give the label maps of its own weights; log the model again")


def _empty(folder: Path) -> Path:
    folder.mkdir()
    return folder
