"""Raw aerial pictures: TIFFs with labels in colours, cut into tiles, channels chosen."""

from __future__ import annotations

import io
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gkd_core.data.catalog.load import Catalog, load_catalog
from gkd_core.data.catalog.tiling import Tiling
from gkd_core.data.files.blobs import read_bytes
from gkd_core.data.files.origin import Folders, LocalSets, Shards
from gkd_core.data.files.reading import read_pair
from gkd_core.data.preparing.building import prepare_domains
from gkd_core.data.preparing.conversion import read_bands
from gkd_core.errors import DataError

# The six official colours in the order of the classes, and the black of boundaries.
COLORS = np.array(
    [[255, 255, 255], [0, 0, 255], [0, 255, 255], [0, 255, 0], [255, 255, 0], [255, 0, 0], [0, 0, 0]], dtype=np.uint8
)
CLASSES = np.array([0, 1, 2, 3, 4, 5, 255])
HEIGHT, WIDTH = 70, 90
CATALOG = Path(__file__).parents[3] / "gkd_core/data/catalog"


@pytest.fixture
def catalog() -> Catalog:
    """The shipped raw entries with tiles of 32 pixels, 24 apart."""
    catalog = load_catalog()
    datasets = {
        name: entry.model_copy(update={"tiles": Tiling(size=32, stride=24)}) if entry.tiles is not None else entry
        for name, entry in catalog.datasets.items()
    }
    return catalog.model_copy(update={"datasets": datasets})


@pytest.fixture
def raw(tmp_path: Path) -> tuple[Path, np.ndarray, np.ndarray]:
    """The data root with Potsdam's 14 pictures to validate; channels (14, H, W, 4) and classes (14, H, W) that were drawn."""
    root, rng = tmp_path / "data" / "potsdam-raw", np.random.default_rng(1)
    names = sorted((CATALOG / "potsdam-val.txt").read_text().split())
    pixels = rng.integers(0, 256, (len(names), HEIGHT, WIDTH, 4), dtype=np.uint8)
    classes = rng.integers(0, 7, (len(names), HEIGHT, WIDTH))
    for folder in ("2_Ortho_RGB", "4_Ortho_RGBIR", "5_Labels_all_noBoundary"):
        (root / folder).mkdir(parents=True)
    for name, picture, label in zip(names, pixels, classes, strict=True):
        stem = f"top_potsdam_{name}"
        Image.fromarray(picture[..., :3]).save(root / "2_Ortho_RGB" / f"{stem}_RGB.tif")
        Image.fromarray(picture, "RGBA").save(root / "4_Ortho_RGBIR" / f"{stem}_RGBIR.tif")
        Image.fromarray(COLORS[label]).save(root / "5_Labels_all_noBoundary" / f"{stem}_label_noBoundary.tif")
    return root.parent, pixels, classes


@pytest.mark.parametrize(("dataset", "bands"), [("potsdam-raw-rgb", [0, 1, 2]), ("potsdam-raw-irrg-of-rgbir", [3, 0, 1])])
def test_tiles_hold_the_pixels_and_classes_of_their_place(
    raw: tuple[Path, np.ndarray, np.ndarray], catalog: Catalog, tmp_path: Path, dataset: str, bands: list[int]
) -> None:
    root, pixels, classes = raw
    prepare_domains(
        [catalog.domain(f"{dataset}/val")], root, tmp_path / "out", shrunk=[], shard_bytes=100_000, jobs=1,
        bar=lambda title, total: nullcontext(lambda done: None), say=lambda line: None,
    )  # fmt: skip
    domain, origin = catalog.domain(f"{dataset}/val"), Shards(LocalSets(tmp_path / "out"))
    pairs, encoding = origin.pairs(domain), origin.encoding(domain)
    assert len(pairs) == 14 * 3 * 4
    seen = np.zeros((14, HEIGHT, WIDTH), dtype=bool)
    for number, pair in enumerate(pairs):
        picture = number // 12
        _, left, top, right, bottom = origin.name(domain, pair.image).removesuffix(".png").rsplit("_", 4)
        rows, columns = slice(int(top), int(bottom)), slice(int(left), int(right))
        image, ids = read_pair(pair, encoding)
        assert image.shape == (32, 32, 3)
        assert np.array_equal(image, pixels[picture, rows, columns][..., bands])
        assert np.array_equal(ids, CLASSES[classes[picture, rows, columns]])
        seen[picture, rows, columns] = True
    assert seen.all()
    stored = Image.open(io.BytesIO(read_bytes(pairs[0].label)))
    assert (stored.mode, stored.format) == ("L", "PNG")


def test_raw_pictures_are_not_read_from_their_folder(raw: tuple[Path, np.ndarray, np.ndarray], catalog: Catalog) -> None:
    """Training would see 6000 × 6000 pixels, and the wrong channels."""
    with pytest.raises(DataError, match="'potsdam-raw-rgb' is declared raw .* run gkd data prepare"):
        Folders(raw[0]).images(catalog.domain("potsdam-raw-rgb/val"))


def test_channels_that_are_not_there_are_named(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / "a.tif")
    with pytest.raises(DataError, match=r"a\.tif: pixel mode RGB, expected at least 4 channels of 8 bits each"):
        read_bands(tmp_path / "a.tif", (3, 0, 1))
