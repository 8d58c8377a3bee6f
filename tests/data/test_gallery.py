"""Pictures of a dataset: which images are taken, how labels are coloured, and that the file is a picture of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from gkd_core.cli import app
from gkd_core.data.catalog.load import load_catalog
from gkd_core.data.files.origin import Folders
from gkd_core.data.gallery import draw_sample

CATALOG = """
taxonomies:
  duo: {classes: [road, car], colors: [[90, 90, 90], [0, 0, 142]]}
encodings:
  duo-ids: {taxonomy: duo, ids: {1: 0, 2: 1, 0: 255}}
datasets:
  yard: {folder: yard, images: "images/*.png", labels: "labels/*.png", encoding: duo-ids, splits: {all: {}}}
  field: {folder: yard, images: "images/*.png", splits: {all: {}}}
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Twelve images, each of one grey that is its number; labels of one class."""
    for folder in ("images", "labels"):
        (tmp_path / "yard" / folder).mkdir(parents=True)
    for index in range(12):
        Image.new("RGB", (24, 16), (index, index, index)).save(tmp_path / f"yard/images/{index:02d}.png")
        Image.new("L", (24, 16), 1 + index % 2).save(tmp_path / f"yard/labels/{index:02d}.png")
    (tmp_path / "own.yaml").write_text(CATALOG)
    return tmp_path


def test_images_are_spread_over_the_split_and_chosen_by_seed(root: Path) -> None:
    catalog = load_catalog([root / "own.yaml"])
    chosen = {
        seed: [int(image[0, 0, 0]) for image in draw_sample(catalog.domain("yard/all"), Folders(root), 4, seed).images]
        for seed in range(6)
    }
    assert all([number // 3 for number in numbers] == [0, 1, 2, 3] for numbers in chosen.values())
    assert len({tuple(numbers) for numbers in chosen.values()}) > 1
    assert chosen[0] == [int(image[0, 0, 0]) for image in draw_sample(catalog.domain("yard/all"), Folders(root), 4, 0).images]
    assert len(draw_sample(catalog.domain("field/all"), Folders(root), 99, 0).images) == 12


def test_labels_belong_to_their_images(root: Path) -> None:
    sample = draw_sample(load_catalog([root / "own.yaml"]).domain("yard/all"), Folders(root), 5, 1)
    assert [int(label[0, 0]) for label in sample.labels] == [int(image[0, 0, 0]) % 2 for image in sample.images]


def test_the_command_draws_images_and_labels(root: Path) -> None:
    values = ("data.world=null", f"data.root={root}", f"data.catalogs=[{root}/own.yaml]")
    options = ["--profile", "demo", *(word for value in values for word in ("--set", value))]
    output = root / "out" / "yard.png"
    result = CliRunner().invoke(
        app, ["data", "show", "yard/all", "field/all", "--output", str(output), "--images", "2", *options]
    )
    assert result.exit_code == 0, result.output
    picture = np.asarray(Image.open(output).convert("RGB"))
    drawn = {tuple(color) for color in picture.reshape(-1, 3).tolist()}
    assert {(90, 90, 90), (0, 0, 142)} & drawn
    assert (picture[:, :10] != 255).any()
