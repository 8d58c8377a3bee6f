"""Every named dataset, written small in the layout of its archive and read back: ids equal tables written a second time here, by
class name, or the official one."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from cityscapesscripts.helpers.labels import labels as official  # type: ignore[import-untyped]
from PIL import Image

from gkd_core.data.catalog.load import load_catalog
from gkd_core.data.catalog.taxonomy import IGNORE, ColorEncoding, LabelEncoding, NamedEncoding
from gkd_core.data.files.reading import list_pairs, read_pair, resolve_encoding
from gkd_core.errors import DataError

Table = Mapping[int, str | None]  # what a label file holds, and the class that it is
Writer = Callable[[np.ndarray, Path], None]

CITYSCAPES = {label.id: label.name if 0 <= label.trainId < 19 else None for label in official if label.id >= 0}
GTA5 = CITYSCAPES | {34: None}
CITYSCAPES_TRAIN = {label.trainId: label.name for label in official if 0 <= label.trainId < 19} | {255: None}
SYNTHIA = dict(
    enumerate(
        [
            *(None, "sky", "building", "road", "sidewalk", "fence", "vegetation", "pole", "car", "traffic sign", "person"),
            *("bicycle", "motorcycle", None, None, "traffic light", "terrain", "rider", "truck", "bus", "train", "wall", None),
        ]
    )
)
ISPRS = dict(enumerate([None, "impervious surface", "building", "low vegetation", "tree", "car", "clutter"]))
ISPRS_COLORS = {
    0x000000: None, 0xFFFFFF: "impervious surface", 0x0000FF: "building", 0x00FFFF: "low vegetation", 0x00FF00: "tree",
    0xFFFF00: "car", 0xFF0000: "clutter",
}  # fmt: skip
POTSDAM_5 = dict(enumerate([None, "impervious surface", "building", "vegetation", "vegetation", "car", "clutter"]))
RESCUENET = dict(
    enumerate([None, "clutter", *["building"] * 4, "car", "impervious surface", "impervious surface", "vegetation", "clutter"])
)


def official_colors() -> dict[int, str | None]:
    """The palette; where two labels share a colour, the one that is evaluated."""
    found: dict[int, str | None] = {}
    for label in official:
        value = int.from_bytes(bytes(label.color), "big")
        found[value] = label.name if 0 <= label.trainId < 19 else found.get(value)
    return found


def grey(ids: np.ndarray, path: Path) -> None:
    Image.fromarray(ids.astype(np.uint8)).save(path)


def palette(ids: np.ndarray, path: Path) -> None:
    picture = Image.fromarray(ids.astype(np.uint8))
    picture.putpalette([*range(256)] * 3)
    picture.save(path)


def colors(ids: np.ndarray, path: Path) -> None:
    Image.fromarray(np.dstack([ids >> 16, ids >> 8 & 255, ids & 255]).astype(np.uint8)).save(path)


def deep(ids: np.ndarray, path: Path) -> None:
    """A PNG of three channels of 16 bits: ids, and numbers of instances that must not matter."""
    rows = np.dstack([ids, ids * 0 + 4321, ids * 0]).astype(">u2")

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", ids.shape[1], ids.shape[0], 16, 2, 0, 0, 0)
    pixels = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b""))


def grey_as_rgb(ids: np.ndarray, path: Path) -> None:
    grey_path = path.with_suffix(".tmp.png")
    grey(ids, grey_path)
    Image.open(grey_path).convert("RGB").save(path)
    grey_path.unlink()


@dataclass(frozen=True)
class Archive:
    """One image and its label as an archive names them, and how the label is written."""

    domain: str
    image: str
    label: str
    table: Table
    write: Writer = grey
    listed: tuple[str, str] | None = None  # a list file, and what is in it


GTA_LIST = ("gta5/train.txt", "00001\n")
FRANKFURT, AACHEN = "frankfurt/frankfurt_000000_000294", "aachen/aachen_000000_000019"
VAIHINGEN = "vaihingen-raw/ISPRS_semantic_labeling_Vaihingen"
ARCHIVES = [
    Archive("gta5/train", "gta5/images/00001.png", "gta5/labels/00001.png", GTA5, palette, GTA_LIST),
    Archive(
        "gta5-colors/train",
        "gta5/images/00001.png",
        "gta5/labels/00001.png",
        official_colors() | {0x141414: None},
        colors,
        GTA_LIST,
    ),
    Archive(
        "gta5-train-ids/train", "gta5/images/00001.png", "gta5/labels/00001_labelTrainIds.png", CITYSCAPES_TRAIN, grey, GTA_LIST
    ),
    Archive(
        "cityscapes/val",
        f"cityscapes/leftImg8bit/val/{FRANKFURT}_leftImg8bit.png",
        f"cityscapes/gtFine/val/{FRANKFURT}_gtFine_labelIds.png",
        CITYSCAPES,
    ),
    Archive(
        "cityscapes-train-ids/train",
        f"cityscapes/leftImg8bit/train/{AACHEN}_leftImg8bit.png",
        f"cityscapes/gtFine/train/{AACHEN}_gtFine_labelTrainIds.png",
        CITYSCAPES_TRAIN,
    ),
    Archive(
        "cityscapes-colors/val",
        f"cityscapes/leftImg8bit/val/{FRANKFURT}_leftImg8bit.png",
        f"cityscapes/gtFine/val/{FRANKFURT}_gtFine_color.png",
        official_colors(),
        colors,
    ),
    Archive(
        "bdd100k/val",
        "bdd100k/images/10k/val/7d06fefd-f7be05a6.jpg",
        "bdd100k/labels/sem_seg/masks/val/7d06fefd-f7be05a6.png",
        CITYSCAPES_TRAIN,
    ),
    *(
        Archive(
            f"acdc-{condition}/val",
            f"acdc/rgb_anon/{condition}/val/GOPR0356/GOPR0356_frame_000324_rgb_anon.png",
            f"acdc/gt/{condition}/val/GOPR0356/GOPR0356_frame_000324_gt_labelTrainIds.png",
            CITYSCAPES_TRAIN,
        )
        for condition in ("night", "snow", "fog", "rain")
    ),
    Archive(
        "synthia/all",
        "synthia/RAND_CITYSCAPES/RGB/0000000.png",
        "synthia/RAND_CITYSCAPES/GT/LABELS/0000000.png",
        SYNTHIA,
        deep,
    ),
    Archive(
        "synthia-train-ids/all",
        "synthia/RAND_CITYSCAPES/RGB/0000000.png",
        "synthia/RAND_CITYSCAPES/GT/LABELS/0000000_labelTrainIds.png",
        CITYSCAPES_TRAIN,
    ),
    *(
        Archive("urbansyn/all", "urbansyn/rgb/rgb_0001.png", "urbansyn/ss/ss_0001.png", CITYSCAPES_TRAIN | {19: None}, write)
        for write in (grey, grey_as_rgb)
    ),
    *(
        Archive(
            f"potsdam-{bands.lower()}/val",
            f"potsdam/{bands}/img_dir/val/2_13_0_0_512_512.png",
            f"potsdam/{bands}/ann_dir/val/2_13_0_0_512_512.png",
            ISPRS,
        )
        for bands in ("RGB", "IRRG")
    ),
    Archive(
        "potsdam-rgb-5/train",
        "potsdam/RGB/img_dir/train/2_10_0_0_512_512.png",
        "potsdam/RGB/ann_dir/train/2_10_0_0_512_512.png",
        POTSDAM_5,
    ),
    Archive(
        "vaihingen-irrg/val",
        "vaihingen/img_dir/val/area38_0_0_512_512.png",
        "vaihingen/ann_dir/val/area38_0_0_512_512.png",
        ISPRS,
    ),
    *(
        Archive(
            f"potsdam-raw-{bands.lower()}/all",
            f"potsdam-raw/{folder}/top_potsdam_2_10_{bands}.tif",
            "potsdam-raw/5_Labels_all_noBoundary/top_potsdam_2_10_label_noBoundary.tif",
            ISPRS_COLORS,
            colors,
        )
        for bands, folder in (("RGB", "2_Ortho_RGB"), ("IRRG", "3_Ortho_IRRG"))
    ),
    Archive(
        "vaihingen-raw-irrg/all",
        f"{VAIHINGEN}/top/top_mosaic_09cm_area1.tif",
        f"{VAIHINGEN}_ground_truth_eroded_COMPLETE/top_mosaic_09cm_area1_noBoundary.tif",
        ISPRS_COLORS,
        colors,
    ),
    Archive("rescuenet/test", "rescuenet/test-org-img/10801.jpg", "rescuenet/test-label-img/10801_lab.png", RESCUENET),
]


def write(archive: Archive, root: Path) -> np.ndarray:
    """Write image, label and list; gives the classes of the label's pixels, each value of the table at two pixels or more."""
    ids = np.array([sorted(archive.table), sorted(archive.table, reverse=True)])
    for path in (root / archive.image, root / archive.label):
        path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((*ids.shape, 3), 90, dtype=np.uint8)).save(root / archive.image)
    archive.write(ids, root / archive.label)
    if archive.listed is not None:
        (root / archive.listed[0]).write_text(archive.listed[1])
    return np.array([[archive.table[value] for value in row] for row in ids.tolist()], dtype=object)


@pytest.mark.parametrize("archive", ARCHIVES, ids=lambda archive: f"{archive.domain}-{archive.write.__name__}")
def test_read_back_ids_equal_the_oracle(archive: Archive, tmp_path: Path) -> None:
    named = write(archive, tmp_path)
    catalog = load_catalog()
    domain = catalog.domain(archive.domain)
    (pair,) = list_pairs(domain.entry, tmp_path, domain.split)
    assert (pair.image, pair.label) == (tmp_path / archive.image, tmp_path / archive.label)
    _, label = read_pair(pair, resolve_encoding(catalog, domain.entry, tmp_path))
    classes = domain.taxonomy.classes
    assert label.tolist() == [[IGNORE if name is None else classes.index(name) for name in row] for row in named.tolist()]


@pytest.mark.parametrize("version", ["v1.2", "v2.0"])
def test_mapillary_reads_back_through_its_file_of_names(version: str, tmp_path: Path) -> None:
    """Names of the archive in another order than the catalog's: the file decides, and every pixel keeps its name's class."""
    catalog = load_catalog()
    entry = catalog.dataset("mapillary" if version == "v1.2" else "mapillary-v2")
    encoding = catalog.encodings[f"mapillary-{version}"]
    assert isinstance(encoding, NamedEncoding)
    names = sorted(encoding.classes, key=lambda name: name[::-1])
    labels = "labels" if version == "v1.2" else "v2.0/labels"
    image, label = (tmp_path / f"mapillary/validation/{path}" for path in ("images/qb0l.jpg", f"{labels}/qb0l.png"))
    for path in (image, label):
        path.parent.mkdir(parents=True)
    config = tmp_path / "mapillary" / ("config.json" if version == "v1.2" else "config_v2.0.json")
    config.write_text(json.dumps({"labels": [{"name": name} for name in names]}))
    Image.fromarray(np.zeros((1, len(names), 3), np.uint8)).save(image)
    palette(np.arange(len(names))[None], label)
    (pair,) = list_pairs(entry, tmp_path, "val")
    _, read = read_pair(pair, resolve_encoding(catalog, entry, tmp_path))
    classes = catalog.taxonomies["cityscapes-19"].classes
    assert read[0].tolist() == [IGNORE if (known := encoding.classes[name]) is None else classes.index(known) for name in names]


def test_every_labelled_dataset_is_among_the_archives() -> None:
    catalog = load_catalog()
    written = {archive.domain.partition("/")[0] for archive in ARCHIVES} | {"mapillary", "mapillary-v2"}
    # Entries with bands show the same places as another; the test of prepare writes their archive.
    named = {name for name, entry in catalog.datasets.items() if entry.labels is not None and entry.bands is None}
    assert written == named


V2_RULES = [
    (("human--person",), "person"), (("human--rider",), "rider"), (("object--traffic-light",), "traffic light"),
    (("marking",), "road"), (("object--support--traffic-sign-frame",), "traffic sign"), (("object--support",), "pole"),
    (("object--street-light",), "pole"), (("construction--structure--building", "construction--structure--garage"), "building"),
    (("construction--barrier--wall",), "wall"), (("construction--barrier--fence",), "fence"),
    (("construction--barrier--curb", "construction--barrier--road-median"), "sidewalk"),
    (("construction--flat--rail-track",), None),
    (("construction--flat--curb-cut", "construction--flat--driveway", "construction--flat--pedestrian-area"), "sidewalk"),
    (("construction--flat--sidewalk", "construction--flat--traffic-island"), "sidewalk"),
    (("construction--flat",), "road"),
    (("object--traffic-sign--temporary", "object--traffic-sign--ambiguous"), None), (("object--traffic-sign",), "traffic sign"),
]  # fmt: skip
PLAIN = {
    "nature--sky": "sky", "nature--terrain": "terrain", "nature--vegetation": "vegetation", "object--vehicle--bicycle": "bicycle",
    "object--vehicle--bus": "bus", "object--vehicle--car": "car", "object--vehicle--motorcycle": "motorcycle",
    "object--vehicle--on-rails": "train", "object--vehicle--truck": "truck",
}  # fmt: skip


def test_mapillary_v2_follows_rules_of_its_hierarchy() -> None:
    """The table of 124 names, derived a second time from what the names begin with; all else is ignored."""
    encoding = load_catalog().encodings["mapillary-v2.0"]
    assert isinstance(encoding, NamedEncoding)
    derived = {
        name: PLAIN[name] if name in PLAIN else next((kind for starts, kind in V2_RULES if name.startswith(starts)), None)
        for name in encoding.classes
    }
    assert len(derived) == 124
    assert list(derived)[:2] == ["animal--bird", "animal--ground-animal"] and list(derived)[-1] == "void--unlabeled"
    assert {list(derived).index(name): name for name in ("construction--flat--road", "nature--sky", "object--vehicle--car")} == {
        21: "construction--flat--road", 61: "nature--sky", 108: "object--vehicle--car"
    }  # fmt: skip
    assert dict(encoding.classes) == derived


def test_names_that_both_versions_of_mapillary_have_mean_the_same() -> None:
    old, new = (load_catalog().encodings[f"mapillary-{version}"] for version in ("v1.2", "v2.0"))
    assert isinstance(old, NamedEncoding) and isinstance(new, NamedEncoding)
    shared = set(old.classes) & set(new.classes)
    assert len(shared) == 61
    assert {name: old.classes[name] for name in shared} == {name: new.classes[name] for name in shared}


def test_every_encoding_reaches_every_class() -> None:
    """SYNTHIA's table too, although three of its classes are in no image."""
    catalog = load_catalog(["camvid"])
    for name, encoding in catalog.encodings.items():
        classes = catalog.taxonomies[encoding.taxonomy].classes
        if isinstance(encoding, LabelEncoding):
            reached = {classes[train_id] for train_id in encoding.ids.values() if train_id != IGNORE}
        else:
            table = encoding.colors if isinstance(encoding, ColorEncoding) else encoding.classes
            reached = {kind for kind in table.values() if kind is not None}
        assert reached == set(classes), name


@pytest.mark.parametrize(
    ("domain", "count"),
    [
        ("gta5-train-ids/all", 24966), ("cityscapes/train", 2975), ("cityscapes/val", 500), ("bdd100k/train", 7000),
        ("bdd100k/val", 1000), ("mapillary/train", 18000), ("mapillary-v2/val", 2000), ("acdc-night/val", 106),
        ("acdc-snow/val", 100), ("acdc-fog/val", 100), ("acdc-rain/val", 100), ("synthia/all", 9400), ("urbansyn/all", 7539),
        ("rescuenet/train", 3595), ("rescuenet/val", 449), ("rescuenet/test", 450), ("potsdam-raw-rgb/train", 24),
        ("potsdam-raw-rgb/val", 14), ("vaihingen-raw-irrg/train", 16), ("vaihingen-raw-irrg/val", 17),
    ],
)  # fmt: skip
def test_official_counts_are_stated(domain: str, count: int) -> None:
    assert load_catalog().domain(domain).rule.count == count


@pytest.mark.parametrize("name", ["potsdam-raw-rgb", "potsdam-raw-irrg", "vaihingen-raw-irrg"])
def test_lists_of_tiles_have_the_stated_number_and_share_none(name: str) -> None:
    entry = load_catalog().dataset(name)
    lists = {}
    for split in ("train", "val"):
        path = entry.split(split).list_file(Path())
        assert path is not None
        lists[split] = path.read_text().split()
        assert len(lists[split]) == entry.split(split).count == len(set(lists[split]))
    assert not set(lists["train"]) & set(lists["val"])
    assert len(lists["train"]) + len(lists["val"]) == entry.split("all").count


def test_tiles_of_a_list_are_found_by_their_number(tmp_path: Path) -> None:
    catalog = load_catalog()
    entry = catalog.dataset("potsdam-raw-rgb")
    for tile in ("2_10", "2_13"):
        image = tmp_path / f"potsdam-raw/2_Ortho_RGB/top_potsdam_{tile}_RGB.tif"
        image.parent.mkdir(parents=True, exist_ok=True)
        image.touch()
    with pytest.raises(DataError, match=r"potsdam-train\.txt: '2_11' is not there \(23 of 24 lines\)"):
        list_pairs(entry, tmp_path, "train")
