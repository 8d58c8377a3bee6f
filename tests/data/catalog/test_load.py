"""Datasets and benchmarks as data: what is shipped, what a user adds, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from gkd_core.data.catalog.entries import Protocol, fixed_folder
from gkd_core.data.catalog.load import load_catalog
from gkd_core.errors import DataError

OWN = """
datasets:
  depot:
    folder: depot
    images: photos/*.jpg
    labels: masks/*.png
    encoding: cityscapes-train-ids
    splits: {yard: {list_in_catalog: yard.txt}, all: {}}
"""


def test_the_five_benchmarks_have_their_sources_and_targets() -> None:
    catalog = load_catalog()
    shape = {name: (str(item.source), item.validation, sorted(item.targets)) for name, item in catalog.benchmarks.items()}
    assert {name: shape[name] for name in ("G2C", "G2B", "G2M", "C2A", "P2R")} == {
        "G2C": ("gta5/train", "gta5/val", ["cityscapes"]),
        "G2B": ("gta5/train", "gta5/val", ["bdd100k"]),
        "G2M": ("gta5/train", "gta5/val", ["mapillary"]),
        "C2A": ("cityscapes/train", "cityscapes/val", ["fog", "night", "rain", "snow"]),
        "P2R": ("potsdam-rgb/train", "potsdam-rgb/val", ["potsdam-irrg", "vaihingen-irrg"]),
    }


@pytest.mark.parametrize(
    ("dataset", "native", "shown"),
    [
        ("cityscapes", (1024, 2048), (512, 1024)),
        ("bdd100k", (720, 1280), (720, 1280)),
        ("gta5", (1052, 1914), (704, 1280)),
        ("mapillary", (2448, 3264), (512, 683)),
        ("mapillary", (3264, 2448), (683, 512)),
        ("acdc-night", (1080, 1920), (540, 960)),
        ("potsdam-rgb", (512, 512), (512, 512)),
        ("cityscapes", (64, 128), (64, 128)),
    ],
)
def test_protocols_give_the_published_sizes(dataset: str, native: tuple[int, int], shown: tuple[int, int]) -> None:
    assert load_catalog().dataset(dataset).protocol.input_size(*native) == shown


def test_mapillary_is_scored_at_half_size_whatever_the_model_is_shown() -> None:
    protocols = {name: load_catalog().dataset(name).protocol for name in ("mapillary", "cityscapes")}
    assert protocols["mapillary"].label_size(2448, 3264) == (1224, 1632)
    assert protocols["cityscapes"].label_size(1024, 2048) == (1024, 2048)


def test_only_mapillary_is_scored_on_resized_labels() -> None:
    assert [entry.name for entry in load_catalog().datasets.values() if entry.protocol.resize_labels] == [
        "mapillary",
        "mapillary-v2",
    ]


def test_shrinking_keeps_the_shape() -> None:
    assert Protocol(max_size=(100, 100)).input_size(200, 400) == (50, 100)


def test_inputs_of_a_split_are_only_what_it_reads() -> None:
    catalog = load_catalog()
    root = Path("data")
    assert catalog.dataset("mapillary").image_inputs(root, "val") == [root / "mapillary/validation/images"]
    assert catalog.dataset("mapillary").label_inputs(root, "val") == [
        root / "mapillary/validation/labels",
        root / "mapillary/config.json",
    ]
    assert catalog.dataset("gta5").image_inputs(root, "train") == [root / "gta5/images", root / "gta5/train.txt"]
    assert catalog.dataset("proxy").label_inputs(root, "all") == []


def test_fixed_folder_ends_before_the_first_wildcard() -> None:
    assert fixed_folder("a/b/*/c_*.png") == "a/b"
    assert fixed_folder("a/*.png") == "a"
    assert fixed_folder("*.png") == "."


def test_a_dataset_of_ones_own_is_one_file(tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(OWN)
    entry = load_catalog([path]).dataset("depot")
    assert entry.split("yard").list_file(Path("root")) == tmp_path / "yard.txt"


def test_unknown_names_list_what_there_is() -> None:
    catalog = load_catalog()
    with pytest.raises(DataError, match=r"dataset 'gta' is unknown; there is: acdc-fog.*gta5"):
        catalog.dataset("gta")
    with pytest.raises(DataError, match="benchmark 'G2X'.*G2B, G2C, G2M"):
        catalog.benchmark("G2X")
    with pytest.raises(DataError, match="dataset 'gta5' has no split 'test'; there is: train, val"):
        catalog.domain("gta5/test")
    with pytest.raises(DataError, match="expected dataset/split"):
        catalog.domain("gta5")
    with pytest.raises(DataError, match="'nowhere'.*camvid"):
        load_catalog(["nowhere"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("datasets: {gta5: {folder: a, images: '*.png', splits: {all: {}}}}", "'gta5' is declared already"),
        ("datasets: {a: {folder: a, images: '*.png', splits: {all: {}}, imags: 1}}", r"datasets\.a\.imags"),
        ("datasets: {a: {folder: a, images: 'x.png', splits: {all: {}}}}", "'x.png' is not fixed folders"),
        ("datasets: {a: {folder: a, images: '*/rgb/*.png', splits: {all: {}}}}", "is not fixed folders"),
        ("datasets: {a: {folder: a, images: '{split}/*.png', splits: {all: {}}}}", "give both or neither"),
        ("datasets: {a: {folder: a, images: '*.png', labels: 'l/*.png', splits: {all: {}}}}", "labels and encoding go together"),
        (
            "datasets: {a: {folder: a, images: '*.png', labels: 'l/*.png', encoding: none, splits: {all: {}}}}",
            "encoding 'none' is unknown",
        ),
        ("encodings: {a: {taxonomy: isprs-6, ids: {0: 6}}}", "6 is no class of taxonomy 'isprs-6'"),
        (
            "benchmarks: {a: {title: a, source: gta5/train, validation: gta5/val, targets: {x: potsdam-irrg/val}}}",
            "different classes",
        ),
        ("benchmarks: {a: {title: a, source: proxy/all, validation: gta5/val, targets: {x: gta5/val}}}", "'proxy' is unlabelled"),
        ("dataset: {}", "expected the sections"),
        ("datasets: [1]", "map names to groups of keys"),
        ("datasets: {", "cannot be read as YAML"),
    ],
)
def test_malformed_catalogs_are_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        load_catalog([path])


DEPOT = """
taxonomies:
  yard: {classes: [ground, truck], colors: [[90, 90, 90], [0, 0, 142]]}
encodings:
  yard-ids: {taxonomy: yard, ids: {0: 0, 1: 1, 255: 255}}
datasets:
  depot:
    folder: depot
    images: photos/{split}/*.jpg
    labels: masks/{split}/*.png
    encoding: yard-ids
    splits: {train: {folders: [north]}, val: {folders: [south]}}
benchmarks:
  D2D: {title: depot, source: depot/train, validation: depot/val, targets: {depot: depot/val}}
"""


IDS, MASKS, SOURCE = "ids: {0: 0, 1: 1, 255: 255}", "masks/{split}/*.png", "source: depot/train"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("    images:", "    imgs:", "datasets.depot.imgs: unknown key; allowed here: .*; did you mean 'images'?"),
        ("    encoding: yard-ids\n", "", "datasets.depot: labels and encoding go together"),
        ("encoding: yard-ids", "encoding: yard-id", "encoding 'yard-id' is unknown; there is: .*yard-ids"),
        (MASKS, "masks/{split}/a.png", "depot.labels: given 'masks/.*a.png'; 'masks/.*' is not fixed folders"),
        (MASKS, "masks/{split}/*/*.png", "datasets.depot: images and labels need the same number of \\*"),
        ("{folders: [north]}", "{folder: [north]}", "train.folder: unknown key; allowed here: .*; did you mean 'folders'?"),
        ("{folders: [north]}", "{folders: north}", "datasets.depot.splits.train.folders: given 'north'; input should be"),
        ("{folders: [north]}", "{folders: [north], count: 0}", "splits.train.count: given 0; input should be greater than 0"),
        (IDS, "ids: {0: 0, 1: 2, 255: 255}", "encoding 'yard-ids': 2 is no class of taxonomy 'yard'"),
        (IDS, "ids: {0: ground}", "encodings.yard-ids.ids.0: given 'ground'; input should be"),
        (IDS, "names: {a: ground}", "encodings.yard-ids: give exactly one of ids .*, classes .* and colors"),
        (IDS, "ids: {0: 0}, form: red", "yard-ids.form: given 'red'; input should be 'index', 'first-ch"),
        (IDS, "colors: {'#5a5a5': ground}", "encodings.yard-ids.colors.#5a5a5: given '#5a5a5'"),
        (IDS, "colors: {'#5a5a5a': lawn}", "encoding 'yard-ids': 'lawn' is no class of taxonomy 'yard'"),
        (IDS, "classes: {a: ground}", "dataset 'depot': label_names needs an encoding by names"),
        (SOURCE, "source: {depot/train: -1}", "benchmarks.D2D.source: weight of depot/train: expected a number ab"),
        (SOURCE, "source: depot/winter", "dataset 'depot' has no split 'winter'; there is: train, val"),
        (SOURCE, "source: [depot/train, gta5/train]", "benchmark 'D2D': its domains have different classes"),
        ("source: depot/train, ", "", "benchmarks.D2D.source: missing; it must be given"),
        ("classes: [ground, truck]", "classes: [ground]", "taxonomies.yard: 1 classes but 2 colors"),
        ("depot:\n", "depot:\n    any_suffix_case: maybe\n", "datasets.depot.any_suffix_case: given 'maybe'; input should"),
    ],
)  # fmt: skip
def test_a_mistake_in_ones_own_dataset_is_one_clear_line(tmp_path: Path, old: str, new: str, message: str) -> None:
    path = tmp_path / "depot.yaml"
    assert DEPOT.count(old) >= 1
    path.write_text(DEPOT.replace(old, new, 1))
    with pytest.raises(DataError, match=message) as error:
        load_catalog([path])
    assert "\n" not in str(error.value)
    path.write_text(DEPOT)
    assert load_catalog([path]).benchmark("D2D").source.name == "depot"


def test_the_file_with_the_mistake_is_named(tmp_path: Path) -> None:
    (tmp_path / "good.yaml").write_text(OWN)
    (tmp_path / "bad.yaml").write_text("datasets: {yard: {folder: y, images: '*.png', splits: {}}}")
    with pytest.raises(
        DataError, match=rf"^{tmp_path}/bad\.yaml: datasets\.yard\.splits: dictionary should have at least 1 item"
    ):
        load_catalog([tmp_path / "good.yaml", tmp_path / "bad.yaml"])


def test_a_missing_catalog_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone\.yaml: no such catalog file"):
        load_catalog([tmp_path / "gone.yaml"])
