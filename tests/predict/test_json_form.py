"""What a server is asked and what it answers: any image there and back, and one line for what is none."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from gkd_core.errors import DataError
from gkd_core.predict.json_form import answered, asked_picture
from gkd_core.predict.student import Segmentor
from tests.predict.conftest import CLASSES, noise


def encoded(image: Image.Image, form: str = "PNG") -> str:
    stream = io.BytesIO()
    image.save(stream, form)
    return base64.b64encode(stream.getvalue()).decode()


@given(height=st.integers(1, 40), width=st.integers(1, 40))
def test_an_image_file_and_its_pixels_are_one_image(height: int, width: int) -> None:
    image = noise(height, width)
    for row in (
        {"image": encoded(Image.fromarray(image))},
        {"image": encoded(Image.fromarray(image)), "pixels": float("nan")},
        {"image": None, "pixels": image.tolist()},
        {"pixels": image},
    ):
        assert np.array_equal(asked_picture(row, "image").pixels, image)


def test_base64_may_be_broken_into_lines() -> None:
    image = noise(30, 30)
    text = base64.encodebytes(base64.b64decode(encoded(Image.fromarray(image)))).decode()
    assert text.count("\n") > 2
    assert np.array_equal(asked_picture({"image": text}, "image").pixels, image)


def test_an_image_is_turned_upright_as_of_a_file() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    stream = io.BytesIO()
    Image.fromarray(noise(10, 20)).save(stream, "PNG", exif=exif)
    picture = asked_picture({"image": base64.b64encode(stream.getvalue()).decode()}, "image")
    assert (picture.height, picture.width) == (20, 10)


def test_an_answer_is_the_label_map_as_a_png_of_one_channel(student: Callable[..., Segmentor]) -> None:
    answer = student().predict(noise(37, 61))
    given = answered(answer)
    label_map = Image.open(io.BytesIO(base64.b64decode(str(given["label_map"]))))
    assert (label_map.format, label_map.mode) == ("PNG", "L")
    assert np.array_equal(np.asarray(label_map), answer.labels)
    assert len(np.unique(answer.labels)) > 1, "else a map of zeros would do"
    assert (given["height"], given["width"], given["classes"]) == (37, 61, list(CLASSES))


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({}, "has neither image nor pixels"),
        ({"image": None, "pixels": float("nan")}, "has neither image nor pixels"),
        ({"image": "", "pixels": [[[0, 0, 0]]]}, "has both image and pixels"),
        ({"image": 5}, "a int"),
        ({"image": "é"}, "is no base64"),
        ({"image": "a" * 10_001}, "is no base64"),
        ({"image": ""}, "no PNG, JPEG"),
        ({"image": base64.b64encode(b"GIF89a").decode()}, "image 1: "),
        ({"pixels": 5}, r"of shape \(\)"),
        ({"pixels": "text"}, r"of shape \(\)"),
        ({"pixels": [[[0, 0, 0]], [[0, 0, 0], [0, 0, 0]]]}, "rows of different lengths"),
        ({"pixels": [[[0, 0, 0, 0]]]}, r"of shape \(1, 1, 4\)"),
        ({"pixels": [[[True, True, True]]]}, "of kind bool"),
        ({"pixels": [[["0", "0", "0"]]]}, "of kind <U1"),
        ({"pixels": [[[0, 0, None]]]}, "of kind object"),
        ({"pixels": [[[0, 0, 10**30]]]}, "of kind object"),
        ({"pixels": [[[0, -1, 0]]]}, "values from -1 to 0"),
    ],
)
def test_what_is_no_image_is_said_in_one_line(row: dict[str, object], words: str) -> None:
    with pytest.raises(DataError, match=words) as error:
        asked_picture(row, "image 1")
    assert str(error.value).startswith("image 1: ")
    assert "\n" not in str(error.value) and len(str(error.value)) < 300
