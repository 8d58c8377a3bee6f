"""A small dataset of two folders, as it unpacks, and how it is prepared."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from gkd_core.data.catalog.load import Catalog, load_catalog
from gkd_core.data.preparing.building import prepare_domains

YARD = {
    "taxonomies": {"yard": {"classes": ["ground", "vehicle", "person"], "colors": [[90, 90, 90], [0, 0, 142], [220, 20, 60]]}},
    "encodings": {"yard-ids": {"taxonomy": "yard", "ids": {0: 255, 7: 0, 24: 1, 300: 2}}},
    "datasets": {
        "yard": {
            "folder": "yard",
            "images": "images/{split}/*.jpg",
            "labels": "labels/{split}/*_ids.png",
            "encoding": "yard-ids",
            "splits": {"both": {"folders": ["summer", "autumn"]}, "few": {"folders": ["summer"]}},
            "protocol": {"max_size": [12, 20]},
        },
        "half": {
            "folder": "yard",
            "images": "images/{split}/*.jpg",
            "labels": "labels/{split}/*_ids.png",
            "encoding": "yard-ids",
            "splits": {"both": {"folders": ["summer", "autumn"]}},
            "protocol": {"scale": 0.5, "resize_labels": True},
        },
    },
}
IDS = np.array([0, 7, 24, 300], dtype=np.uint16)
COUNTS = {"summer": 9, "autumn": 5}
Prepare = Callable[..., list[str]]
Digests = Callable[[Path], dict[str, str]]


def catalog_of(tree: dict[str, object], path: Path) -> Catalog:
    path.write_text(yaml.safe_dump(tree))
    return load_catalog([path])


@pytest.fixture
def yard(tmp_path: Path) -> Path:
    """The data root: 14 noisy pictures of 16 × 24 pixels, label files of 16 bits."""
    root, rng = tmp_path / "data", np.random.default_rng(0)
    for folder, count in COUNTS.items():
        for content in ("images", "labels"):
            (root / "yard" / content / folder).mkdir(parents=True)
        for index in range(count):
            image = Image.fromarray(rng.integers(0, 256, (16, 24, 3), dtype=np.uint8))
            image.save(root / "yard/images" / folder / f"{index:03d}.jpg")
            Image.fromarray(IDS[rng.integers(0, 4, (16, 24))]).save(root / "yard/labels" / folder / f"{index:03d}_ids.png")
    return root


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    return catalog_of(YARD, tmp_path / "yard.yaml")


@pytest.fixture
def prepare(catalog: Catalog, yard: Path, tmp_path: Path) -> Prepare:
    """Prepare domains of the yard into a folder; gives the lines that are said."""

    def run(output: Path, *references: str, shrunk: Sequence[str] = (), shard_bytes: int = 4_000, jobs: int = 1) -> list[str]:
        lines: list[str] = []
        prepare_domains(
            [catalog.domain(name) for name in references or ("yard/both",)],
            yard,
            output,
            shrunk=shrunk,
            shard_bytes=shard_bytes,
            jobs=jobs,
            bar=lambda title, total: nullcontext(lambda done: None),
            say=lines.append,
        )
        return lines

    return run


@pytest.fixture
def digests() -> Digests:
    """Gives SHA-256 of every file below a folder, hidden ones too."""

    def of(folder: Path) -> dict[str, str]:
        files = (path for path in sorted(folder.rglob("*")) if path.is_file())
        return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}

    return of
