"""A logged student as MLflow serves it: images of any size in, their label maps out, as `gkd predict` gives them."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE
from mlflow.pyfunc.model import PythonModel, PythonModelContext
from mlflow.types import ColSpec, DataType, Schema
from mlflow.types.schema import AnyType, Array

from gkd_core.errors import GkdError, WeightsError
from gkd_core.predict.json_form import CLASSES, EXPECTED, HEIGHT, IMAGE, LABEL_MAP, PIXELS, WIDTH, answered, asked_picture
from gkd_core.predict.manifest import Bundle
from gkd_core.predict.student import Segmentor, device_named
from gkd_core.records import MANIFEST, SegmentorCheckpoint
from gkd_core.storage.model_files import LOG_AGAIN

BUNDLE = "bundle.json"  # beside the checkpoint of a logged model: what a bundle would say of it
CHECKPOINT_KEY, BUNDLE_KEY, DEVICE_KEY = "checkpoint", "bundle", "device"  # in MLflow's description of the flavour
# MLflow checks each number of an array that has a type by itself, which takes minutes of one image.
SIGNATURE = ModelSignature(
    Schema([ColSpec(DataType.string, IMAGE, required=False), ColSpec(AnyType(), PIXELS, required=False)]),
    Schema(
        [
            ColSpec(DataType.string, LABEL_MAP),
            ColSpec(DataType.long, HEIGHT),
            ColSpec(DataType.long, WIDTH),
            ColSpec(Array(DataType.string), CLASSES),
        ]
    ),
)


class RequestError(MlflowException):
    """A request that cannot be answered, in one line. MLflow gives it as status 400.

    MLflow's server puts all of the request before an error's message: of an image, megabytes. So this one keeps its own.
    """

    def __init__(self, line: str) -> None:
        self._line = line
        super().__init__(line, error_code=INVALID_PARAMETER_VALUE)

    @property
    def message(self) -> str:
        """The line."""
        return self._line

    @message.setter
    def message(self, text: str) -> None:
        """Nothing: the line stays."""


class ServedStudent(PythonModel):
    """The flavour `python_function` of a logged student. It answers one image after the other, also where many ask at once."""

    def __init__(self) -> None:
        self._turn = threading.Lock()  # MLflow's server has a thread for each request: memory would grow with them
        self._student: Segmentor | None = None

    def load_context(self, context: PythonModelContext) -> None:
        """Open the weights; raises as `open_logged`."""
        files, settings = context.artifacts, context.model_config or {}
        device = str(settings.get(DEVICE_KEY, "auto"))
        self._student = open_logged(Path(files[BUNDLE_KEY]), Path(files[CHECKPOINT_KEY]), device)

    def predict(
        self, context: PythonModelContext, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> list[dict[str, object]]:
        """An answer for each row (`json_form.asked_picture`, `json_form.answered`).

        Raises:
            RequestError: there is no row, or one is no image.
        """
        assert self._student is not None, "MLflow loads before it predicts"
        if model_input.empty:
            raise RequestError(f"the request has no image; {EXPECTED}")
        rows = model_input.to_dict(orient="records")
        try:
            with self._turn:
                return [
                    answered(self._student.predict(asked_picture(row, f"image {number}"))) for number, row in enumerate(rows, 1)
                ]
        except GkdError as error:
            raise RequestError(str(error)) from None


def open_logged(bundle: Path, checkpoint: Path, device: str) -> Segmentor:
    """The student whose files these are.

    Args:
        bundle: what a bundle would say of it.
        checkpoint: the folder of its weights and their manifest.
        device: as torch calls it; auto takes a GPU where there is one.

    Raises:
        GkdError: a file is missing or damaged, or they are not of one student.
    """
    known = Bundle.read(bundle)
    if SegmentorCheckpoint.read(checkpoint / MANIFEST).sha256 != known.model.sha256:
        raise WeightsError(f"{bundle}: describes another student than {checkpoint}; {LOG_AGAIN}")
    return Segmentor.of_segmentor(known, checkpoint, device_named(device))
