"""Aerial pictures: answered by strips as they would be at once, and lying where they lay."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pytest
from PIL import Image

from gkd_core.errors import DataError
from gkd_core.predict import geotiff
from gkd_core.predict import student as student_module
from gkd_core.predict.geotiff import is_geo, predict_geo
from gkd_core.predict.inputs import Input
from gkd_core.predict.manifest import OwnIds
from gkd_core.predict.outputs import Outputs, Wanted
from tests.predict.conftest import CLASSES, noise
from tests.predict.test_student import Make

HEIGHT, WIDTH = 130, 70


def write_geo(path: Path, pixels: np.ndarray, **more: Any) -> None:
    rasterio: Any = pytest.importorskip("rasterio")
    place = {"crs": "EPSG:25832", "transform": rasterio.transform.from_origin(691_000.0, 5_334_000.0, 0.2, 0.2)}
    bands = np.moveaxis(np.atleast_3d(pixels), -1, 0)
    options = {"driver": "GTiff", "height": pixels.shape[0], "width": pixels.shape[1], "count": len(bands), "dtype": pixels.dtype}
    with rasterio.open(path, "w", **options, **(place | more)) as dataset:
        dataset.write(bands)


def item(path: Path) -> Input:
    return Input(path, path.name, PurePosixPath(path.stem))


@pytest.mark.parametrize("sixteen", [False, True])
def test_its_answer_is_that_of_the_image_and_lies_in_its_place(
    student: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sixteen: bool
) -> None:
    rasterio: Any = pytest.importorskip("rasterio")
    pixels = noise(HEIGHT, WIDTH)
    write_geo(tmp_path / "a.tif", pixels.astype(np.uint16) * 257 if sixteen else pixels)
    monkeypatch.setattr(student_module, "STRIP", 9 * WIDTH * len(CLASSES) * 4)
    made = student()
    answer = made.predict(pixels)
    outputs = Outputs(tmp_path / "out", Wanted(None, overlay=True, confidence=True, probabilities=True))
    row = predict_geo(made, item(tmp_path / "a.tif"), outputs)
    for kind, expected in (
        ("labels", answer.labels[None]),
        ("overlays", np.moveaxis(answer.overlay(), -1, 0)),
        ("confidence", np.rint(answer.confidence * 255)[None]),
        ("probabilities", answer.quantised()),
    ):
        with rasterio.open(tmp_path / f"out/{kind}/a.tif") as written, rasterio.open(tmp_path / "a.tif") as given:
            assert (written.crs, written.transform) == (given.crs, given.transform)
            assert np.array_equal(written.read(), expected), kind
    assert (row.height, row.width, row.labels) == (HEIGHT, WIDTH, "labels/a.tif")
    assert row.shares == pytest.approx(answer.shares.tolist())
    assert row.confidence == pytest.approx(answer.confidence.mean(), abs=1e-6)
    assert row.entropy == pytest.approx(answer.entropy, abs=1e-6)


def test_ground_control_points_and_own_ids_are_kept(student: Make, tmp_path: Path) -> None:
    rasterio: Any = pytest.importorskip("rasterio")
    points = [rasterio.control.GroundControlPoint(row, col, 11 + col / 100, 48 - row / 100) for row in (0, 50) for col in (0, 50)]
    write_geo(tmp_path / "a.tif", noise(60, 60)[..., 0], gcps=points, crs="EPSG:4326", transform=None)
    own = OwnIds(dataset="d", form="index", values=(7, 300, 26, 23, 21))
    made = student()
    predict_geo(made, item(tmp_path / "a.tif"), Outputs(tmp_path / "out", Wanted(own)))
    expected = np.array([7, 300, 26, 23, 21])[made.predict(noise(60, 60)[..., 0]).labels]
    with rasterio.open(tmp_path / "out/labels/a.tif") as written:
        assert np.array_equal(written.read(1), expected)
        found, system = written.gcps
        assert [(point.row, point.col, point.x, point.y) for point in found] == [(p.row, p.col, p.x, p.y) for p in points]
        assert system == rasterio.crs.CRS.from_epsg(4326)


def test_a_palette_is_colours(student: Make, tmp_path: Path) -> None:
    rasterio: Any = pytest.importorskip("rasterio")
    indices = noise(40, 40)[..., 0]
    table = noise(256, 5)[:, 0]
    write_geo(tmp_path / "a.tif", indices, photometric="palette")
    with rasterio.open(tmp_path / "a.tif", "r+") as dataset:
        dataset.write_colormap(1, {index: (*map(int, color), 255) for index, color in enumerate(table)})
    made = student()
    predict_geo(made, item(tmp_path / "a.tif"), Outputs(tmp_path / "out", Wanted()))
    with rasterio.open(tmp_path / "out/labels/a.tif") as written:
        assert np.array_equal(written.read(1), made.predict(table[indices]).labels)


def test_what_rasterio_reads_and_what_pillow_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("rasterio")
    write_geo(tmp_path / "geo.tif", noise(20, 20))
    Image.fromarray(noise(20, 20)).save(tmp_path / "plain.tif")
    (tmp_path / "text.tif").write_text("hello")
    said: list[str] = []
    kinds = {name: is_geo(item(tmp_path / name), said.append) for name in ("geo.tif", "plain.tif", "text.tif", "none.tif")}
    assert kinds == {"geo.tif": True, "plain.tif": False, "text.tif": False, "none.tif": False}
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    assert is_geo(item(tmp_path / "plain.tif"), said.append), "too large for Pillow"
    assert said == []


def test_without_rasterio_it_is_said_that_the_georeference_is_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    picture = Image.fromarray(noise(20, 20))
    picture.save(tmp_path / "geo.tif", tiffinfo={33550: (0.2, 0.2, 0.0), 33922: (0.0, 0.0, 0.0, 1.0, 2.0, 0.0)})
    picture.save(tmp_path / "plain.tif")
    monkeypatch.setattr(geotiff, "find_spec", lambda name: None)
    said: list[str] = []
    assert not is_geo(item(tmp_path / "geo.tif"), said.append)
    assert not is_geo(item(tmp_path / "plain.tif"), said.append)
    assert said == [
        "geo.tif: its georeference is not copied to the label map, as rasterio is not installed; pip install rasterio"
    ]


@pytest.mark.parametrize(("pixels", "message"), [
    (np.zeros((9, 9), np.float32), "numbers of kind float32; expected 8 or 16 bits"),
    (None, "no TIFF that can be read"),
])  # fmt: skip
def test_a_damaged_one_is_one_line_and_leaves_nothing(
    student: Make, tmp_path: Path, pixels: np.ndarray | None, message: str
) -> None:
    pytest.importorskip("rasterio")
    write_geo(tmp_path / "a.tif", np.zeros((9, 9), np.uint8) if pixels is None else pixels)
    if pixels is None:
        (tmp_path / "a.tif").write_bytes((tmp_path / "a.tif").read_bytes()[:60])
    with pytest.raises(DataError, match=message) as refused:
        predict_geo(student(), item(tmp_path / "a.tif"), Outputs(tmp_path / "out", Wanted()))
    assert "\n" not in str(refused.value)
    assert not list((tmp_path / "out").rglob("*.tif"))


def test_one_that_claims_more_than_any_picture_is_refused(student: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_geo(tmp_path / "a.tif", noise(20, 20))
    monkeypatch.setattr(geotiff, "MOST_PIXELS", 399)
    with pytest.raises(DataError, match="20 x 20 pixels, more than 399; cut it into tiles"):
        predict_geo(student(), item(tmp_path / "a.tif"), Outputs(tmp_path / "out", Wanted()))
