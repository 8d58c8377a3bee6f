"""A trained student as an MLflow logged model: a pt2 program to run anywhere, safetensors to go on from, and what serves it."""

from __future__ import annotations

import base64
import io
import os
import shutil
import tempfile
from pathlib import Path

import mlflow.pyfunc
import mlflow.pytorch
import numpy as np
import pandas as pd
import torch
from mlflow.entities import LoggedModelOutput
from mlflow.models import Model, ModelSignature
from mlflow.tracking import MlflowClient
from mlflow.types import Schema, TensorSpec
from PIL import Image
from torch import Tensor

from gkd_core.errors import PlatformError
from gkd_core.export.traced import EXPORT
from gkd_core.messages import one_line
from gkd_core.models.segmentor import load_segmentor
from gkd_core.predict.json_form import IMAGE, asked_picture
from gkd_core.predict.manifest import Bundle
from gkd_core.records import MANIFEST, SegmentorCheckpoint
from gkd_core.registry.served_student import BUNDLE, BUNDLE_KEY, CHECKPOINT_KEY, DEVICE_KEY, SIGNATURE
from gkd_core.registry.signatures import sign
from gkd_core.storage.mlflow_weights import CHECKPOINT
from gkd_core.storage.model_files import digests_of, tags_of

SCRIPT = Path(__file__).with_name("serve.py")
DATA = "data"  # where MLflow puts a program


def log_segmentor(
    client: MlflowClient,
    experiment: str,
    run_id: str,
    folder: Path,
    bundle: Bundle,
    example: Tensor,
    private_key: Path | None = None,
) -> str:
    """Log the segmentor that lies in `folder` as a model of a run.

    It has two flavours. `python_function` is what `mlflow models serve` starts: `served_student`, on any image. `pytorch` is a
    pt2 program that maps float32 images (B, 3, H, W) in 0..1 to logits (B, K, H, W), B free, (H, W) as in the example. Beside
    them, under `checkpoint/`, lie the safetensors and the manifest as the stage wrote them. The digest of every file is put on
    record with the model, and where there is a key, they are signed.

    Args:
        bundle: what a bundle would say of it (`stages.bundle.describe`).
        example: images (B, 3, H, W) in 0..1 that the model's page shows, B at least 2.
        private_key: PEM file to sign with.

    Returns:
        the model's id; `mlflow.pyfunc.load_model(f"models:/{id}")` and `mlflow.pytorch.load_model` load it.

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
            _write(folder, bundle, example, target, Model(model_id=logged.model_id))
        except (RuntimeError, TypeError, ValueError) as error:
            client.finalize_logged_model(logged.model_id, "FAILED")
            reason = one_line(error, 300)
            raise PlatformError(f"{folder}: the student cannot be exported as pt2 ({reason})") from error
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


def example_images(rows: pd.DataFrame) -> Tensor:
    """The images (B, 3, H, W) in 0..1 of a logged model's input example."""
    pictures = [asked_picture(row, "input example") for row in rows.to_dict(orient="records")]
    return torch.stack([picture.rows(0, picture.height) for picture in pictures])


def _write(folder: Path, bundle: Bundle, example: Tensor, target: Path, description: Model) -> None:
    """Write a model's folder: MLflow's description with its two flavours, and all that they load."""
    rows = pd.DataFrame({IMAGE: [_jpeg(image) for image in example]})
    with EXPORT:  # MLflow keeps the model that a script sets in a variable of its own
        mlflow.pyfunc.save_model(
            str(target), python_model=str(SCRIPT), mlflow_model=description, signature=SIGNATURE, input_example=rows,
            pip_requirements=[_pinned("mlflow", mlflow.__version__), _pinned("torch", torch.__version__)],
        )  # fmt: skip
        program = _program(folder, example_images(rows), len(bundle.classes), target / DATA)
    shutil.copytree(folder, target / CHECKPOINT, copy_function=shutil.copyfile)
    bundle.write(target / BUNDLE)
    # As paths below the model's folder: MLflow would copy the weights once more, and note where the script lay on this machine.
    served = description.flavors[mlflow.pyfunc.FLAVOR_NAME]
    files = {CHECKPOINT_KEY: CHECKPOINT, BUNDLE_KEY: BUNDLE}
    served["artifacts"] = {key: {"path": name, "uri": name} for key, name in files.items()}
    served[mlflow.pyfunc.MODEL_CODE_PATH] = SCRIPT.name
    served[mlflow.pyfunc.MODEL_CONFIG] = {DEVICE_KEY: "auto"}
    description.add_flavor(mlflow.pytorch.FLAVOR_NAME, **program)
    description.model_size_bytes = sum(path.stat().st_size for path in target.rglob("*") if path.is_file())
    description.save(str(target / "MLmodel"))


def _program(folder: Path, example: Tensor, classes: int, target: Path) -> dict[str, object]:
    """Export the pt2 program into the folder `target`; gives what MLflow's description says of it."""
    segmentor, kind = load_segmentor(folder), np.dtype("float32")
    height, width = example.shape[-2:]
    signature = ModelSignature(
        Schema([TensorSpec(kind, (-1, 3, height, width), "images")]),
        Schema([TensorSpec(kind, (-1, classes, height, width), "logits")]),
    )
    own = Model()
    with tempfile.TemporaryDirectory(dir=target.parent.parent) as temporary:
        whole = Path(temporary) / "program"
        mlflow.pytorch.save_model(
            segmentor, str(whole), mlflow_model=own, signature=signature, serialization_format="pt2",
            input_example=example.numpy(),  # a batch of one would be exported as always one
            pip_requirements=[_pinned("torch", torch.__version__)],
        )  # fmt: skip
        os.replace(whole / DATA, target)
    return dict(own.flavors[mlflow.pytorch.FLAVOR_NAME])


def _pinned(package: str, version: str) -> str:
    return f"{package}=={version.partition('+')[0]}"


def _jpeg(image: Tensor) -> str:
    """An image (3, H, W) in 0..1 as a request has it; lossy, as the example stands in the model's files twice."""
    stream = io.BytesIO()
    pixels = (image * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    Image.fromarray(pixels).save(stream, "JPEG")
    return base64.b64encode(stream.getvalue()).decode("ascii")
