"""Small datasets of every layout, clean, for tests to damage."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gkd_core.data.catalog.load import Catalog, load_catalog
from gkd_core.data.verify.faults import Report
from gkd_core.data.verify.run import verify
from tests.ordinary_user import ordinary_user

CATALOG = """
taxonomies:
  trio: {classes: [road, car, tree], colors: [[90, 90, 90], [0, 0, 142], [0, 90, 0]]}
encodings:
  trio-ids: {taxonomy: trio, ids: {1: 0, 2: 1, 3: 2, 0: 255}}
  trio-names: {taxonomy: trio, classes: {a: road, b: car, c: tree, d: null}}
datasets:
  depot:
    folder: depot
    images: photos/{split}/*/*_photo.png
    labels: masks/{split}/*/*_mask.png
    encoding: trio-ids
    splits:
      train: {folders: [north, south], count: 44}
      val: {folders: [east], count: 2}
  far:
    folder: far
    images: images/*.jpg
    labels: labels/*.png
    encoding: trio-ids
    splits: {all: {}}
  listed:
    folder: listed
    images: images/*/*.png
    labels: labels/*/*.png
    encoding: trio-ids
    splits:
      some: {list_in_dataset: some.txt}
      rest: {list_in_dataset: rest.txt}
  named:
    folder: named
    images: images/*.png
    labels: labels/*.png
    encoding: trio-names
    label_names: config.json
    splits: {all: {}}
  proxy-photos:
    folder: photos
    images: "*.jpg"
    splits: {all: {}}
benchmarks:
  D2F: {title: depot to far, source: depot/train, validation: depot/val, targets: {far: far/all}}
"""
DOMAINS = ("proxy-photos/all", "depot/train", "depot/val", "far/all", "listed/some", "listed/rest", "named/all")
SIZE = (12, 18)


def write_pair(image: Path, label: Path | None, seed: int) -> None:
    """An image of noise, and a label that has every id of the encoding."""
    numbers = np.random.default_rng(seed)
    for path in (image, label):
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(numbers.integers(0, 256, (*SIZE, 3), dtype=np.uint8)).save(image)
    if label is not None:
        ids = numbers.integers(0, 4, SIZE, dtype=np.uint8)
        ids[0, :4] = range(4)
        Image.fromarray(ids).save(label)


def write_all(root: Path) -> None:
    """Every domain of CATALOG, with nothing wrong."""
    for index in range(44):
        place = f"{'north' if index < 40 else 'south'}/{'ab'[index % 2]}/{index:02d}"
        write_pair(root / f"depot/photos/{place}_photo.png", root / f"depot/masks/{place}_mask.png", index)
    for index in range(2):
        write_pair(root / f"depot/photos/east/a/{index}_photo.png", root / f"depot/masks/east/a/{index}_mask.png", 100 + index)
    for index in range(8):
        write_pair(root / f"far/images/{index}.jpg", root / f"far/labels/{index}.png", 200 + index)
    for index in range(6):
        write_pair(root / f"listed/images/x/{index}.png", root / f"listed/labels/x/{index}.png", 300 + index)
    (root / "listed/some.txt").write_text("0\nx/1\n2.png\n")
    (root / "listed/rest.txt").write_text("3\n4\n5\n")
    for index in range(2):
        write_pair(root / f"named/images/{index}.png", root / f"named/labels/{index}.png", 400 + index)
    (root / "named/config.json").write_text('{"labels": [{"name": "a"}, {"name": "b"}, {"name": "c"}, {"name": "d"}]}')
    for index in range(4):
        write_pair(root / f"photos/{index}.jpg", None, 500 + index)


@pytest.fixture
def root() -> Iterator[Path]:
    """A data root that every user may enter, which pytest's own folders do not allow."""
    with tempfile.TemporaryDirectory(prefix="gkd-verify-") as name:
        os.chmod(name, 0o755)
        write_all(Path(name))
        yield Path(name)


@pytest.fixture(scope="session")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    path = tmp_path_factory.mktemp("catalog") / "own.yaml"
    path.write_text(CATALOG)
    return load_catalog([path])


@pytest.fixture
def own(root: Path, tmp_path: Path) -> list[str]:
    """Options of the command line by which a run reads these datasets."""
    path = tmp_path / "own.yaml"
    path.write_text(CATALOG)
    values = (
        "data.world=null",
        f"data.root={root}",
        f"data.catalogs=[{path}]",
        "data.benchmarks=[D2F]",
        "data.proxy=proxy-photos/all",
    )
    return ["--profile", "demo", *(word for value in values for word in ("--set", value))]


@contextmanager
def quiet(_title: str, _total: int) -> Iterator[Callable[[int], None]]:
    yield lambda _done: None


@pytest.fixture
def no_progress() -> Callable[..., object]:
    """A display that shows nothing."""
    return quiet


@pytest.fixture
def check(catalog: Catalog) -> Callable[..., Report]:
    """`verify` in this process, as an ordinary user, of all domains unless told which."""

    def run(root: Path, *domains: str) -> Report:
        with ordinary_user():
            return verify([catalog.domain(name) for name in domains or DOMAINS], root, 1, quiet)

    return run
