"""`gkd data describe`: the catalogs that come with the program, and the real datasets here, are the oracle of its guesses."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st
from PIL import Image
from typer.testing import CliRunner

from gkd_core.cli import app
from gkd_core.data.catalog.load import Catalog, load_catalog
from gkd_core.data.describe import labels as counting
from gkd_core.data.describe.describing import describe
from gkd_core.data.describe.draft import Draft
from gkd_core.data.files.reading import list_images, list_pairs
from gkd_core.data.verify.faults import Report
from gkd_core.data.verify.run import verify
from gkd_core.data.world.layouts import LAYOUTS
from gkd_core.data.world.writer import write_world
from gkd_core.documents import parse_yaml
from gkd_core.errors import EXIT_USER_ERROR, DataError
from gkd_core.settings import WorldSettings

SHARED = Path(__file__).parents[4] / "shared/data"
NOISE = np.random.default_rng(0)


@contextmanager
def no_bar(title: str, total: int) -> Iterator[Callable[[int], None]]:
    yield lambda done: None


def photo(path: Path, seed: int = 0, size: tuple[int, int] = (16, 24)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng([seed, *path.name.encode("utf-8", "surrogateescape")]).integers(0, 256, (*size, 3), np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def label(path: Path, values: list[int], size: tuple[int, int] = (16, 24)) -> Path:
    """Stripes of these values, each of the same height."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = np.array(values, np.uint8)[np.arange(size[0]) * len(values) // size[0]]
    Image.fromarray(np.repeat(rows[:, None], size[1], axis=1)).save(path)
    return path


def colored(path: Path, colors: list[tuple[int, int, int]], size: tuple[int, int] = (16, 24)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = np.array(colors, np.uint8)[np.arange(size[0]) * len(colors) // size[0]]
    Image.fromarray(np.repeat(rows[:, None], size[1], axis=1)).save(path)
    return path


def loaded(draft: Draft, folder: Path) -> Catalog:
    """The catalog with the described file in it."""
    file = folder / "described.yaml"
    file.write_text(draft.text, encoding="utf-8")
    return load_catalog([file])


def verified(draft: Draft, catalog: Catalog, root: Path) -> Report:
    """What `gkd data verify` says of all that was described."""
    entries = draft.sections["datasets"]
    domains = [catalog.domain(f"{name}/{split}") for name, entry in entries.items() for split in entry["splits"]]
    return verify(domains, root, 1, no_bar)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("world") / "data"
    sizes = {"street_size": (32, 64), "aerial_size": (32, 32), "proxy_images": 6}
    write_world(WorldSettings.model_validate(sizes | {"train_images": 4, "val_images": 3, "target_images": 3}), root)
    return root


@pytest.mark.parametrize("name", ["acdc", "bdd100k", "cityscapes", "gta5", "mapillary", "potsdam", "vaihingen"])
def test_the_layouts_of_the_shipped_datasets_are_guessed(world: Path, tmp_path: Path, name: str) -> None:
    """Images and labels go together as in the entries that people wrote, and the splits are theirs."""
    shipped = load_catalog()
    domains = [shipped.domain(layout.domain) for layout in LAYOUTS]
    written = {frozenset(pairs_of(domain.entry.name, domain.split, shipped, world)) for domain in domains
               if domain.entry.folder.partition("/")[0] == name}  # fmt: skip
    draft = describe(world / name)
    catalog = loaded(draft, tmp_path)
    guessed = {frozenset(pairs_of(entry, split, catalog, world)) for entry in draft.sections["datasets"]
               for split in catalog.dataset(entry).splits}  # fmt: skip
    assert guessed == written
    assert draft.gaps == []
    assert verified(draft, catalog, world).count("error") == 0


def pairs_of(entry: str, split: str, catalog: Catalog, root: Path) -> list[tuple[str, str]]:
    return [(str(pair.image), str(pair.label)) for pair in list_pairs(catalog.dataset(entry), root, split)]


def test_images_alone_are_a_proxy(world: Path, tmp_path: Path) -> None:
    draft = describe(world / "proxy")
    (entry,) = draft.sections["datasets"].values()
    assert draft.gaps == [] and "labels" not in entry and "encodings" not in parse_yaml(draft.text)
    catalog = loaded(draft, tmp_path)
    assert list_images(catalog.dataset("my-proxy"), world, "all") == sorted((world / "proxy").rglob("*.png"))


@pytest.mark.parametrize(
    ("name", "classes", "splits"),
    [
        ("bsds500", 0, {"all": 500}),
        ("camvid", 12, {"0001TP": 124, "0006R0": 101, "0016E5": 305}),
        ("dubai_aerial", 5, dict(zip([f"tile{n}" for n in range(1, 9)], [36, 9, 36, 36, 36, 36, 108, 108], strict=True))),
        ("idd_lite", 7, {"train": 1403, "val": 204}),
    ],
)
def test_real_datasets(name: str, classes: int, splits: dict[str, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not (SHARED / name).is_dir():
        pytest.skip(f"{name} is not here")
    monkeypatch.setattr(counting, "MOST_PIXELS", 3_000_000)
    draft = describe(SHARED / name)
    assert draft.gaps == []
    catalog = loaded(draft, tmp_path)
    first, *others = draft.sections["datasets"]
    entry = catalog.dataset(first)
    lists = list_pairs if classes else list_images
    assert {split: len(lists(entry, SHARED, split)) for split in entry.splits} == splits
    assert len(catalog.taxonomy_of(entry).classes if classes else ()) == classes
    assert others == (["idd_lite-unlabelled"] if name == "idd_lite" else [])
    if classes:
        assert "a sample" in draft.text


LAYOUTS_OF_PEOPLE = {
    "beside each other, other suffix": ("{i}.jpg", "{i}.png"),
    "beside each other, a tail": ("{i}.jpg", "{i}_mask.png"),
    "two tails": ("a_{i}_rgb.png", "a_{i}_gt.png"),
    "heads": ("x/rgb_{i}.png", "y/ss_{i}.png"),
    "heads without a separator": ("photos/img{i}.png", "masks/mask{i}.png"),
    "VOC": ("JPEGImages/2007_{i}.jpg", "SegmentationClass/2007_{i}.png"),
    "splits above": ("train/images/{i}.jpg", "train/labels/{i}.png"),
    "splits in names": ("train_images/{i}.jpg", "train_masks/{i}.png"),
    "scenes": ("one/camera/{i}.jpg", "one/truth/{i}.png"),
    "labels in a folder below": ("{i}.jpg", "masks/{i}.png"),
    "capitals": ("images/{i}.JPG", "labels/{i}.PNG"),
    "both suffixes": ("images/{i}.jpg.jpg", "labels/{i}.jpg.png"),
}


@pytest.mark.parametrize("name", LAYOUTS_OF_PEOPLE)
@pytest.mark.parametrize("count", [1, 6])
def test_layouts_of_people(name: str, count: int, tmp_path: Path) -> None:
    base = tmp_path / "mine"
    patterns = LAYOUTS_OF_PEOPLE[name]
    wanted = set()
    for index in range(count):
        for old, new in {"train": "val", "one": "two"}.items() if "plit" in name or "scene" in name else {"-": "-"}.items():
            for word in (old, new) if old in patterns[0] else (old,):
                image, mask = (base / pattern.replace(old, word).format(i=f"{index:03d}") for pattern in patterns)
                wanted.add((str(photo(image, len(word))), str(label(mask, [0, 1, 2]))))
    draft = describe(base)
    catalog = loaded(draft, tmp_path)
    found = {pair for entry in draft.sections["datasets"] for split in catalog.dataset(entry).splits
             for pair in pairs_of(entry, split, catalog, tmp_path)}  # fmt: skip
    assert draft.gaps == []
    assert found == wanted
    assert {kind for kind in verified(draft, catalog, tmp_path).faults if kind.kind.severity == "error"} == set()


def test_ids_are_counted_and_255_is_guessed_to_be_ignored(tmp_path: Path) -> None:
    for index, values in enumerate([[3, 255], [3, 9], [3, 3, 3, 40]]):
        photo(tmp_path / f"d/images/{index}.jpg")
        label(tmp_path / f"d/labels/{index}.png", values)
    draft = describe(tmp_path / "d")
    assert draft.sections["encodings"]["d-ids"] == {"taxonomy": "d-classes", "ids": {3: 0, 9: 1, 40: 2, 255: 255}}
    assert draft.sections["taxonomies"]["d-classes"]["classes"] == ["class 3", "class 9", "class 40"]
    assert "#   3: 58.33 % of pixels, in 3 files -> class 3" in draft.text  # (8 + 8 + 12) of 48 rows
    assert "#   255: 16.67 % of pixels, in 1 files ignored: a guess" in draft.text
    assert "counted in all 3 of 3 label files" in draft.text


def test_a_mask_of_two_values_has_two_classes(tmp_path: Path) -> None:
    photo(tmp_path / "d/images/0.jpg")
    label(tmp_path / "d/labels/0.png", [0, 255])
    assert describe(tmp_path / "d").sections["encodings"]["d-ids"]["ids"] == {0: 0, 255: 1}


def test_colors_are_an_encoding_of_colors_and_keep_their_colors(tmp_path: Path) -> None:
    photo(tmp_path / "d/images/0.jpg")
    colored(tmp_path / "d/labels/0.png", [(0, 0, 0), (255, 0, 0), (1, 2, 3), (0, 255, 0)])
    draft = describe(tmp_path / "d")
    table = draft.sections["encodings"]["d-colors"]["colors"]
    assert table == {"#000000": None, "#00ff00": "class 00ff00", "#010203": "class 010203", "#ff0000": "class ff0000"}
    assert draft.sections["taxonomies"]["d-classes"]["colors"] == [[0, 255, 0], [1, 2, 3], [255, 0, 0]]
    assert verified(draft, loaded(draft, tmp_path), tmp_path).count("error") == 0


def test_a_palette_gives_the_colors(tmp_path: Path) -> None:
    photo(tmp_path / "d/images/0.jpg")
    picture = Image.open(label(tmp_path / "d/labels/0.png", [0, 1])).convert("P")
    picture.putpalette([9, 8, 7, 30, 20, 10])
    picture.save(tmp_path / "d/labels/0.png")
    colors = describe(tmp_path / "d").sections["taxonomies"]["d-classes"]["colors"]
    assert len(colors) == 2 and all(len(color) == 3 for color in colors)
    saved = Image.open(tmp_path / "d/labels/0.png")
    palette = np.reshape(saved.getpalette(), (-1, 3))
    assert colors == palette[np.unique(np.asarray(saved))].tolist()


def test_ids_in_the_first_of_several_channels(tmp_path: Path) -> None:
    photo(tmp_path / "d/images/0.jpg")
    colored(tmp_path / "d/labels/0.png", [(4, 0, 0), (7, 0, 0)])
    draft = describe(tmp_path / "d")
    assert draft.sections["encodings"]["d-ids"] == {"taxonomy": "d-classes", "form": "first-channel", "ids": {4: 0, 7: 1}}


def test_numbers_of_instances_are_no_classes(tmp_path: Path) -> None:
    photo(tmp_path / "d/images/0.jpg", size=(64, 64))
    (tmp_path / "d/labels").mkdir()
    Image.fromarray(np.repeat(np.arange(1024, dtype=np.uint16).reshape(64, 16), 4, axis=1)).save(tmp_path / "d/labels/0.png")
    draft = describe(tmp_path / "d")
    assert any("labels/*.png holds" in gap and "instances" in gap for gap in draft.gaps)
    assert "labels" not in draft.sections["datasets"]["d"]
    loaded(draft, tmp_path)


def test_labels_that_fit_no_image_are_told(tmp_path: Path) -> None:
    photo(tmp_path / "d/images/summer.jpg")
    label(tmp_path / "d/masks/1.png", [0, 1])
    draft = describe(tmp_path / "d")
    assert any("masks/*.png look like labels" in gap for gap in draft.gaps)
    assert "labels" not in draft.sections["datasets"]["d"]


def test_images_without_label_are_told(tmp_path: Path) -> None:
    for index in range(4):
        photo(tmp_path / f"d/images/{index}.jpg")
    for index in range(3):
        label(tmp_path / f"d/labels/{index}.png", [0, 1])
    assert describe(tmp_path / "d").gaps == ["1 images of d have no label: images/3.jpg"]


def test_drawings_are_images_beside_label_maps(tmp_path: Path) -> None:
    """Flat both, and no word in their names: the one in colours is the image."""
    colored(tmp_path / "d/one/0.png", [(1, 2, 3), (200, 0, 0)])
    label(tmp_path / "d/two/0.png", [0, 1])
    entry = describe(tmp_path / "d").sections["datasets"]["d"]
    assert (entry["images"], entry["labels"]) == ("one/*.png", "two/*.png")


def test_labels_that_the_pattern_of_images_would_take_are_told(tmp_path: Path) -> None:
    """`*.png` cannot leave out `*_mask.png`."""
    for index in range(3):
        photo(tmp_path / f"d/{index}.png")
        label(tmp_path / f"d/{index}_mask.png", [0, 1])
    draft = describe(tmp_path / "d")
    assert draft.sections["datasets"]["d"]["labels"] == "*_mask.png"
    assert len(draft.gaps) == 1 and "*.png also takes 3 files that are not meant: 0_mask.png" in draft.gaps[0]


@pytest.mark.parametrize("damage", ["truncated", "empty", "text"])
def test_damaged_files_are_named(tmp_path: Path, damage: str) -> None:
    for index in range(3):
        photo(tmp_path / f"d/images/{index}.jpg")
        label(tmp_path / f"d/labels/{index}.png", [0, 1], size=(64, 512))
    broken = tmp_path / "d/labels/1.png"
    content = broken.read_bytes()
    broken.write_bytes({"truncated": content[: len(content) // 2], "empty": b"", "text": b"no image"}[damage])
    draft = describe(tmp_path / "d")
    assert len(draft.gaps) == 1 and "labels/1.png (" in draft.gaps[0]
    assert draft.sections["encodings"]["d-ids"]["ids"] == {0: 0, 1: 1}


def test_a_picture_of_too_many_pixels_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    photo(tmp_path / "d/images/0.jpg", size=(64, 64))
    photo(tmp_path / "d/images/1.jpg")
    assert ["images/0.jpg" in gap and "cut it into tiles" in gap for gap in describe(tmp_path / "d").gaps] == [True]


def test_lossy_labels_are_refused_by_name(tmp_path: Path) -> None:
    photo(tmp_path / "d/images/0.jpg")
    label(tmp_path / "d/labels/0.jpg", [0, 100], size=(64, 64))
    assert any("labels/0.jpg" in gap and "loss" in gap for gap in describe(tmp_path / "d").gaps)


def test_a_sample_is_said_to_be_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for index in range(20):
        photo(tmp_path / f"d/images/{index:02}.jpg")
        label(tmp_path / f"d/labels/{index:02}.png", [index % 2, 7])
    monkeypatch.setattr(counting, "MOST_PIXELS", 4 * counting.FILE_COST)
    assert "a sample, so that others may have more values: 4 of 20 label files" in describe(tmp_path / "d").text
    assert "all 20 of 20 label files" in describe(tmp_path / "d", every=True).text


def test_a_huge_folder_is_cut_off_and_that_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for index in range(9):
        photo(tmp_path / f"d/{index}.jpg")
    monkeypatch.setattr("gkd_core.data.describe.describing.MOST_FILES", 5)
    assert describe(tmp_path / "d").gaps == [
        "only the first 5 files were looked at; describe a part of the folder, or fill in the rest"
    ]
    monkeypatch.setattr("gkd_core.data.describe.describing.MOST_FILES", 9)
    assert describe(tmp_path / "d").gaps == []


@pytest.mark.parametrize(
    ("made", "words"),
    [(None, "no such folder"), ("d/", "it is empty"), ("d/readme.txt", "found: 1 .txt")],
)
def test_what_is_no_dataset_is_refused(tmp_path: Path, made: str | None, words: str) -> None:
    if made is not None:
        (tmp_path / made).parent.mkdir(exist_ok=True) if not made.endswith("/") else (tmp_path / made).mkdir()
        if not made.endswith("/"):
            (tmp_path / made).touch()
    with pytest.raises(DataError, match=words):
        describe(tmp_path / "d")


def test_a_circle_of_links_is_told_and_not_followed(tmp_path: Path) -> None:
    photo(tmp_path / "d/0.jpg")
    (tmp_path / "d/again").symlink_to(tmp_path / "d")
    draft = describe(tmp_path / "d")
    assert ["again: cannot be entered" in gap and "remove the link" in gap for gap in draft.gaps] == [True]


def test_the_command_prints_yaml_alone_and_its_status_says_whether_it_is_whole(tmp_path: Path) -> None:
    for index in range(2):
        photo(tmp_path / f"d/images/{index}.jpg")
        label(tmp_path / f"d/labels/{index}.png", [0, 1])
    whole = CliRunner().invoke(app, ["data", "describe", str(tmp_path / "d")])
    assert whole.exit_code == 0 and whole.stderr == "" and "FILL IN" not in whole.stdout
    (tmp_path / "d/labels/1.png").write_bytes(b"")
    lacking = CliRunner().invoke(app, ["data", "describe", str(tmp_path / "d")])
    assert lacking.exit_code == EXIT_USER_ERROR and lacking.stderr == "gkd: FILL IN (1): what could not be guessed, or read\n"
    assert lacking.stdout.count("\n# FILL IN: ") == 1
    assert parse_yaml(lacking.stdout) == parse_yaml(whole.stdout)


def test_the_command_in_its_head_is_taken_by_the_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photo(tmp_path / "it's: a #1/images/0.jpg")
    draft = describe(tmp_path / "it's: a #1")
    (tmp_path / "mine.yaml").write_text(draft.text, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, shlex.split(draft.text.splitlines()[2].removeprefix("#"))[1:])
    assert done.exit_code == 0 and "it-s-a-1/all: 1 image, 0 labels, no finding" in done.stdout


PART = st.text(
    st.characters(exclude_characters="/\0", exclude_categories=["Cs"])
    | st.sampled_from("*{}#:'\"\\\n\u2028-&![]%@`~ .é\U0001f600"),
    min_size=1, max_size=8,
).filter(lambda text: text not in (".", "..") and len(text.encode()) < 60)  # fmt: skip


@settings(max_examples=60)
@given(folder=PART, scene=PART, stem=PART)
def test_any_name_gives_yaml_that_means_the_files_or_says_that_it_cannot(
    tmp_path_factory: pytest.TempPathFactory, folder: str, scene: str, stem: str
) -> None:
    base = tmp_path_factory.mktemp("hostile") / folder
    image = photo(base / "images" / scene / f"{stem}.jpg")
    mask = label(base / "labels" / scene / f"{stem}.png", [0, 1])
    try:
        draft = describe(base)
    except DataError as refusal:
        event("refused")
        lines = str(refusal).splitlines()
    else:
        lines = draft.text.splitlines()
        check_meaning(draft, base, image, mask)
    assert len(lines) > 1 or "no image of a name that a catalog can hold" in lines[0]


def check_meaning(draft: Draft, base: Path, image: Path, mask: Path) -> None:
    catalog = loaded(draft, base.parent)
    sections = {name: items for name, items in draft.sections.items() if items}
    assert (parse_yaml(draft.text) or {}) == sections
    root = base.parent if next(iter(draft.sections["datasets"].values()), {}).get("folder") != "." else base
    found = {pair for entry in draft.sections["datasets"] for split in catalog.dataset(entry).splits
             for pair in pairs_of(entry, split, catalog, root)}  # fmt: skip
    assert found == {(str(image), str(mask))} or (draft.gaps and not found)
