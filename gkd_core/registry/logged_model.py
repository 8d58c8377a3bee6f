"""A trained student as an MLflow logged model: pt2 to run anywhere, and the safetensors to go on from."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import mlflow.pytorch
import numpy as np
import torch
from mlflow.entities import LoggedModelOutput
from mlflow.models import Model, ModelSignature
from mlflow.tracking import MlflowClient
from mlflow.types import Schema, TensorSpec

from gkd_core.errors import PlatformError
from gkd_core.export.traced import EXPORT
from gkd_core.messages import one_line
from gkd_core.models.segmentor import load_segmentor
from gkd_core.records import MANIFEST, SegmentorCheckpoint
from gkd_core.registry.signatures import sign
from gkd_core.storage.mlflow_weights import CHECKPOINT
from gkd_core.storage.model_files import digests_of, tags_of

IMAGES = "images"  # name of the input, in the signature and in the example


def log_segmentor(
    client: MlflowClient, experiment: str, run_id: str, folder: Path, example: torch.Tensor, private_key: Path | None = None
) -> str:
    """Log the segmentor that lies in `folder` as a model of a run.

    The pt2 program maps float32 images (B, 3, H, W) in 0..1 to logits (B, K, H, W), B free, (H, W) as in the example. Beside
    it, under `checkpoint/`, lie the safetensors and the manifest as the stage wrote them. The digest of every file is put on
    record with the model, and where there is a key, they are signed.

    Args:
        example: images (B, 3, H, W) that the model's page shows, B at least 2.
        private_key: PEM file to sign with.

    Returns:
        the model's id; `mlflow.pytorch.load_model(f"models:/{id}")` loads it.

    Raises:
        PlatformError: the model cannot be exported or signed.
    """
    manifest = SegmentorCheckpoint.read(folder / MANIFEST)
    facts = {"architecture": manifest.encoder.arch, **manifest.model_dump(include={"decoder", "source", "method"})}
    tags = {"sha256": manifest.sha256, "seed": str(manifest.seed), "taxonomy": manifest.taxonomy}
    logged = client.create_logged_model(experiment, f"student-{manifest.source}", run_id, tags, facts, "segmentor")
    with tempfile.TemporaryDirectory() as temporary:
        target = Path(temporary) / "model"
        try:
            _export(folder, target, Model(model_id=logged.model_id), example.numpy(), len(manifest.classes))
        except (RuntimeError, TypeError, ValueError) as error:
            client.finalize_logged_model(logged.model_id, "FAILED")
            reason = one_line(error, 300)
            raise PlatformError(f"{folder}: the student cannot be exported as pt2 ({reason})") from error
        shutil.copytree(folder, target / CHECKPOINT, copy_function=shutil.copyfile)
        if private_key is not None:
            sign(target, private_key)
        log_files(client, str(logged.model_id), target)
    client.finalize_logged_model(logged.model_id, "READY")
    client.log_outputs(run_id, [LoggedModelOutput(logged.model_id, manifest.updates)])
    return str(logged.model_id)


def log_files(client: MlflowClient, model_id: str, folder: Path) -> None:
    """Put the files of a model into the store, once the digest of each is on record in the database."""
    client.set_logged_model_tags(model_id, tags_of(digests_of(folder)))
    client.log_model_artifacts(model_id, str(folder))


def _export(folder: Path, target: Path, description: Model, example: np.ndarray, classes: int) -> None:
    height, width = example.shape[-2:]
    kind = np.dtype("float32")
    signature = ModelSignature(
        Schema([TensorSpec(kind, (-1, 3, height, width), IMAGES)]),
        Schema([TensorSpec(kind, (-1, classes, height, width), "logits")]),
    )
    with EXPORT:
        mlflow.pytorch.save_model(
            load_segmentor(folder),
            str(target),
            mlflow_model=description,
            signature=signature,
            input_example=example.astype(np.float32),  # a batch of one would be exported as always one
            serialization_format="pt2",
            pip_requirements=[f"torch=={torch.__version__.partition('+')[0]}"],
        )
