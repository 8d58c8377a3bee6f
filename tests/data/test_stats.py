"""The figures of a dataset, held against ones counted by hand."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from gkd_core.cli import app

CATALOG = """
taxonomies:
  duo: {classes: [road, car], colors: [[90, 90, 90], [0, 0, 142]]}
encodings:
  duo-ids: {taxonomy: duo, ids: {1: 0, 2: 1, 0: 255}}
datasets:
  yard:
    folder: yard
    images: "images/*.png"
    labels: "labels/*.png"
    encoding: duo-ids
    splits: {all: {}}
"""
LABELS = {"a": [[1, 1, 2, 0]], "b": [[1, 1], [1, 0]], "c": [[0, 0, 0], [0, 0, 0], [0, 0, 0]]}


@pytest.fixture
def options(tmp_path: Path) -> list[str]:
    for folder in ("images", "labels"):
        (tmp_path / "yard" / folder).mkdir(parents=True)
    for name, rows in LABELS.items():
        label = np.array(rows, dtype=np.uint8)
        Image.fromarray(label).save(tmp_path / f"yard/labels/{name}.png")
        Image.new("RGB", label.shape[::-1]).save(tmp_path / f"yard/images/{name}.png")
    (tmp_path / "own.yaml").write_text(CATALOG)
    values = ("data.world=null", f"data.root={tmp_path}", f"data.catalogs=[{tmp_path}/own.yaml]")
    return ["yard/all", "--profile", "demo", *(word for value in values for word in ("--set", value))]


def test_shares_are_of_the_pixels_that_have_a_class(options: list[str]) -> None:
    result = CliRunner().invoke(app, ["data", "stats", *options, "--json"])
    assert (result.exit_code, json.loads(result.stdout)) == (0, {
        "yard/all": {
            "images": 3,
            "unreadable": 0,
            "labels": 3,
            "sizes": {"smallest": [1, 4], "median": [2, 2], "largest": [3, 3]},
            "classes": {
                "road": {"share": 5 / 6, "pixels": 5, "images": 2},
                "car": {"share": 1 / 6, "pixels": 1, "images": 1},
                "ignored": {"share": 11 / 17, "pixels": 11, "images": 3},
            },
        }
    })  # fmt: skip


def test_the_table_has_a_row_a_class_and_says_what_is_missing(options: list[str], tmp_path: Path) -> None:
    (tmp_path / "yard/labels/a.png").unlink()  # the only one with a car
    (tmp_path / "yard/images/b.png").write_bytes(b"no image")
    result = CliRunner().invoke(app, ["data", "stats", *options])
    rows = [line.split() for line in result.stdout.splitlines()]
    assert rows[1] == ["yard/all", "3", "1", "2", "1", "x", "4", "3", "x", "3", "3", "x", "3"]
    assert rows[-3:] == [
        ["road", "100.00", "(1)"], ["car", "none"], ["ignored,", "of", "all", "pixels", "76.92", "(2)"]
    ]  # fmt: skip
    assert "2 errors are left out of these figures" in result.stderr


def test_a_split_without_images_has_no_figures(options: list[str], tmp_path: Path) -> None:
    for path in (tmp_path / "yard/images").iterdir():
        path.unlink()
    tree = json.loads(CliRunner().invoke(app, ["data", "stats", *options, "--json"]).stdout)["yard/all"]
    assert (tree["images"], tree["sizes"], tree["classes"]["road"]["share"]) == (0, {}, None)
