"""What MLflow calls of a served student; over HTTP in tests/integration/test_serving.py."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from mlflow.pyfunc.model import PythonModelContext

from gkd_core.errors import WeightsError
from gkd_core.registry.served_student import RequestError, ServedStudent, open_logged
from tests.predict.conftest import bundle_of, noise, segmentor_folder


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    folder = segmentor_folder(tmp_path / "checkpoint")
    bundle_of(folder).write(tmp_path / "bundle.json")
    return {"checkpoint": str(folder), "bundle": str(tmp_path / "bundle.json")}


def test_answers_come_in_the_order_of_the_rows(files: dict[str, str]) -> None:
    served = ServedStudent()
    context = PythonModelContext(files, {"device": "cpu"})
    served.load_context(context)
    answers = served.predict(context, pd.DataFrame({"pixels": [noise(8, 9), noise(7, 5)]}))
    assert [(answer["height"], answer["width"]) for answer in answers] == [(8, 9), (7, 5)]
    for rows in (pd.DataFrame(), pd.DataFrame({"image": []})):
        with pytest.raises(RequestError, match="the request has no image"):
            served.predict(context, rows)
    with pytest.raises(RequestError, match="image 2: has neither") as error:
        served.predict(context, pd.DataFrame({"pixels": [noise(8, 9), None]}))
    assert error.value.get_http_status_code() == 400


def test_the_line_of_an_error_stays_whatever_mlflow_puts_before_it() -> None:
    error = RequestError("image 1: no image")
    error.message = "Failed to predict data '" + "A" * 1000
    assert error.message == "image 1: no image"
    assert '"message": "image 1: no image"' in error.serialize_as_json()


def test_files_of_two_students_are_not_served(files: dict[str, str], tmp_path: Path) -> None:
    other = segmentor_folder(tmp_path / "other", family="cnn")
    with pytest.raises(WeightsError, match="describes another student"):
        open_logged(Path(files["bundle"]), other, "cpu")
