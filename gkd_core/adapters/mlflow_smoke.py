"""A registered model, fetched fresh, gives the logits of its own weights."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import mlflow.artifacts
import mlflow.pytorch
import torch
from mlflow.exceptions import MlflowException
from mlflow.models import Model

from gkd_core.adapters.mlflow_model import IMAGES
from gkd_core.adapters.mlflow_registry import SHA256_TAG, Registry
from gkd_core.adapters.mlflow_weights import CHECKPOINT
from gkd_core.errors import PlatformError
from gkd_core.models.segmentor import load_segmentor
from gkd_core.records import MANIFEST, SegmentorCheckpoint
from gkd_core.untrusted import one_line

TOLERANCE = 1e-4  # logits; the exported program may order sums otherwise


def check_served(registry: Registry, name: str, wanted: str, scratch: Path) -> int:
    """Load `models:/name@wanted` as a user would, and hold its output on the input example against that of its safetensors.

    Args:
        wanted: version or alias.
        scratch: folder to fetch it to; emptied afterwards.

    Returns:
        the number of images in the example.

    Raises:
        PlatformError: it cannot be fetched or loaded, is not the student that the registry says, or gives other logits.
        GkdError: its weights are not those that its manifest describes.
    """
    version = registry.version(name, wanted)
    label = f"{name} version {version.version}"
    target = scratch / f"smoke-{name}-{version.version}"
    target.mkdir(parents=True)
    try:
        location = registry.client.get_logged_model(registry.model_id(version)).artifact_location
        folder = mlflow.artifacts.download_artifacts(
            artifact_uri=str(location), dst_path=str(target), tracking_uri=registry.address
        )
        manifest = SegmentorCheckpoint.read(Path(folder) / CHECKPOINT / MANIFEST)
        if manifest.sha256 != version.tags.get(SHA256_TAG):
            raise PlatformError(
                f"{label}: its weights are not those that were registered; restore its artifacts, or register anew"
            )
        stored: Any = Model.load(folder).load_input_example(folder)
        example = torch.from_numpy(stored[IMAGES])
        program = mlflow.pytorch.load_model(folder)
        with torch.inference_mode():
            expected, given = load_segmentor(Path(folder) / CHECKPOINT)(example), program(example)
        if given.shape != expected.shape or not torch.allclose(given, expected, atol=TOLERANCE, rtol=TOLERANCE):
            raise PlatformError(f"{label}: its pt2 program does not give the logits of its own safetensors; log the model again")
        return len(example)
    except (MlflowException, OSError, RuntimeError, TypeError, ValueError, KeyError) as error:
        reason = one_line(error, 300)
        raise PlatformError(f"{label}: it cannot be loaded from the registry ({reason})") from error
    finally:
        shutil.rmtree(target, ignore_errors=True)
