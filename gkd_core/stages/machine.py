"""What a stage must know of the machine that it runs on."""

from __future__ import annotations

from pathlib import Path

import torch

from gkd_core.errors import SettingsError, WeightsError
from gkd_core.paths import RUNS
from gkd_core.records import MANIFEST, EncoderCheckpoint, sha256_of
from gkd_core.settings import EncoderSettings, Settings
from gkd_core.stages.work import Context


def absolute_weights(encoder: EncoderSettings, context: Context) -> EncoderSettings:
    """The encoder with its weights as a file seen from anywhere: Ray's workers have a working directory of their own.

    Weights that lie in MLflow are fetched, to the folder that all workspaces of a project share.

    Raises:
        WeightsError: there are no weights at the MLflow address.
        PlatformError: there is no MLflow store.
    """
    if encoder.weights_uri is not None:
        from gkd_core.storage.mlflow_store import existing_store
        from gkd_core.storage.mlflow_weights import fetch_weights

        shared = (context.workspace / RUNS).resolve()
        address = existing_store(context.settings.tracking.uri, project=shared.parents[1])
        return _with_weights(encoder, fetch_weights(encoder.weights_uri, address, shared / "weights"))
    if encoder.weights_file is not None:
        return _with_weights(encoder, context.workspace / encoder.weights_file)
    return encoder


def distilled_encoder(folder: Path) -> EncoderSettings:
    """The student that a step of stage one left in a folder: on its own grid, with its own weights.

    Raises:
        GkdError: there is none, its record is of another version, or its weights are not those of the record.
    """
    record = EncoderCheckpoint.read(folder / MANIFEST)
    held(folder / record.weights, record.sha256, folder / MANIFEST)
    return record.encoder.model_copy(update={"weights": str(folder / record.weights), "min_coverage": 1.0})


def held(file: Path, sha256: str, manifest: Path) -> Path:
    """A file that a manifest describes, once its content is seen to be what the manifest says.

    Raises:
        WeightsError: it is missing, or its content is another.
    """
    if not file.is_file() or sha256_of(file) != sha256:
        raise WeightsError(f"{file}: its content is not what {manifest} describes; run its stage again or restore the file")
    return file


def _with_weights(encoder: EncoderSettings, file: Path) -> EncoderSettings:
    return encoder.model_copy(update={"weights": str(file)})


def device_of(settings: Settings) -> str:
    """The device that the settings mean, on this machine.

    Raises:
        SettingsError: they ask for a GPU, and torch finds none here.
    """
    asked, found = settings.compute.device, torch.cuda.is_available()
    if asked == "cuda" and not found:
        why = "this torch is built without CUDA" if torch.version.cuda is None else "no GPU, no driver, or CUDA_VISIBLE_DEVICES"
        raise SettingsError(f"compute.device: given 'cuda', but torch finds no GPU here ({why}); set it to auto or cpu")
    if asked != "auto":
        return asked
    return "cuda" if found else "cpu"
