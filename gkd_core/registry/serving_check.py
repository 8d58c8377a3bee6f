"""A registered model, fetched fresh, has the files that were logged, and its program gives the logits of its own weights."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import mlflow.artifacts
import torch
from mlflow.exceptions import MlflowException
from mlflow.models import Model

from gkd_core.errors import PlatformError
from gkd_core.messages import one_line
from gkd_core.models.segmentor import load_segmentor
from gkd_core.records import MANIFEST, SegmentorCheckpoint
from gkd_core.registry.logged_model import IMAGES
from gkd_core.registry.sandboxed_program import program_logits
from gkd_core.registry.signatures import verify
from gkd_core.registry.versions import SHA256_TAG, UNSIGNED, Registry
from gkd_core.storage.mlflow_weights import CHECKPOINT
from gkd_core.storage.model_files import check_files, recorded

TOLERANCE = 1e-4  # logits; the exported program may order sums otherwise


PROGRAM = Path("data") / "model.pt2"  # where MLflow puts it


def check_served(registry: Registry, name: str, wanted: str, scratch: Path, public_key: Path | None = None) -> int:
    """Fetch `models:/name@wanted`, and hold its program's output on the input example against that of its safetensors.

    Nothing is opened before every file's digest is checked; the program runs in a sandbox.

    Args:
        wanted: version or alias.
        scratch: folder to fetch it to; emptied afterwards.
        public_key: of whom it must be signed by, where that is asked for.

    Returns:
        the number of images in the example.

    Raises:
        PlatformError: it cannot be fetched or loaded, is not the student that the registry says, or gives other logits.
        WeightsError: a file of it was changed, added or removed, or its signature does not fit.
    """
    version = registry.version(name, wanted)
    label = f"{name} version {version.version}"
    target = scratch / f"smoke-{name}-{version.version}"
    target.mkdir(parents=True)
    confined = target / "program"
    confined.mkdir()
    try:
        location = registry.client.get_logged_model(registry.model_id(version)).artifact_location
        folder = mlflow.artifacts.download_artifacts(
            artifact_uri=str(location), dst_path=str(target / "model"), tracking_uri=registry.address
        )
        check_files(Path(folder), recorded(version.tags), label, UNSIGNED)
        if public_key is not None:
            verify(Path(folder), public_key, label, UNSIGNED)
        manifest = SegmentorCheckpoint.read(Path(folder) / CHECKPOINT / MANIFEST)
        if manifest.sha256 != version.tags.get(SHA256_TAG):
            raise PlatformError(
                f"{label}: its weights are not those that were registered; restore its artifacts, or register it again"
            )
        stored: Any = Model.load(folder).load_input_example(folder)
        example = torch.from_numpy(stored[IMAGES])
        given = program_logits(Path(folder) / PROGRAM, example, confined, label)
        with torch.inference_mode():
            expected = load_segmentor(Path(folder) / CHECKPOINT)(example)
        if given.shape != expected.shape or not torch.allclose(given, expected, atol=TOLERANCE, rtol=TOLERANCE):
            raise PlatformError(f"{label}: its pt2 program does not give the logits of its own safetensors; log the model again")
        return len(example)
    except (MlflowException, OSError, RuntimeError, TypeError, ValueError, KeyError) as error:
        reason = one_line(error, 300)
        raise PlatformError(f"{label}: it cannot be loaded from the registry ({reason})") from error
    finally:
        shutil.rmtree(target, ignore_errors=True)
