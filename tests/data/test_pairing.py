"""Pairing rules: an image and its label share what the wildcards stand for, whatever stands around them."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gkd_core.data.catalog.entries import DatasetEntry, SplitRule, key_of, path_of
from gkd_core.data.files.reading import list_images, list_pairs
from gkd_core.errors import DataError

WORD = st.text("abz019_-.", min_size=1, max_size=6).filter(lambda word: word not in (".", ".."))
AROUND = st.text("ab_-.", max_size=4)


def entry_of(images: str, labels: str, **fields: object) -> DatasetEntry:
    return DatasetEntry.model_validate(
        {"name": "d", "folder": "d", "images": images, "labels": labels, "encoding": "e", "splits": {"all": {}}, **fields}
    )


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / "d" / name).parent.mkdir(parents=True, exist_ok=True)
        (root / "d" / name).touch()


@settings(max_examples=50)
@given(folders=st.lists(WORD, max_size=2), name=WORD, fixed=WORD, prefix=AROUND, suffix=AROUND)
def test_a_path_and_its_key_say_the_same(folders: list[str], name: str, fixed: str, prefix: str, suffix: str) -> None:
    pattern = "/".join([fixed, *["*"] * len(folders), f"{prefix}*{suffix}"])
    key = "/".join([*folders, name])
    assert key_of(pattern, Path(path_of(pattern, key))) == key


@settings(max_examples=30)
@given(
    keys=st.lists(st.tuples(WORD, WORD).map("/".join), min_size=1, max_size=5, unique=True),
    around=st.tuples(AROUND, AROUND),
    depth=st.sampled_from(["*", "**"]),
)
def test_every_image_gets_the_label_of_its_own_key(keys: list[str], around: tuple[str, str], depth: str) -> None:
    """Files that the patterns do not mean lie beside: labels without image, other suffixes."""
    entry = entry_of(f"rgb/{depth}/i_*.png", f"labels/deep/{depth}/{around[0]}*{around[1]}.tif")
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        wanted = {}
        for key in keys:
            parent, name = key.split("/")
            image, label = f"rgb/{parent}/i_{name}.png", f"labels/deep/{parent}/{around[0]}{name}{around[1]}.tif"
            touch(root, image, label, f"rgb/{parent}/{name}.txt")
            wanted[root / "d" / image] = root / "d" / label
        touch(root, "labels/deep/x/lonely.tif")
        assert {pair.image: pair.label for pair in list_pairs(entry, root, "all")} == wanted


def test_what_stands_around_the_wildcard_may_differ(tmp_path: Path) -> None:
    touch(tmp_path, "rgb/rgb_0001.png", "rgb/rgb_0002.png", "ss/ss_0001.png", "ss/ss_0002.png", "rgb/other_0003.png")
    entry = entry_of("rgb/rgb_*.png", "ss/ss_*.png")
    pairs = list_pairs(entry, tmp_path, "all")
    assert [(pair.image.name, pair.label.name) for pair in pairs] == [(f"rgb_000{i}.png", f"ss_000{i}.png") for i in (1, 2)]


def test_a_folder_of_the_split_may_be_part_of_a_name(tmp_path: Path) -> None:
    """RescueNet's form."""
    touch(tmp_path, "val-org-img/1.jpg", "val-label-img/1_lab.png", "test-org-img/2.jpg", "test-label-img/2_lab.png")
    splits = {name: SplitRule(folders=(name,)) for name in ("val", "test")}
    entry = entry_of("{split}-org-img/*.jpg", "{split}-label-img/*_lab.png", splits=splits)
    (pair,) = list_pairs(entry, tmp_path, "test")
    assert (pair.image.name, pair.label.name) == ("2.jpg", "2_lab.png")


def test_suffixes_in_any_case_are_taken_where_declared(tmp_path: Path) -> None:
    touch(tmp_path, "i/a.jpg", "i/b.JPG", "i/c.Jpg", "l/a_lab.PNG", "l/b_lab.png", "l/c_lab.PNG")
    exact = entry_of("i/*.jpg", "l/*_lab.png")
    assert [path.name for path in list_images(exact, tmp_path, "all")] == ["a.jpg"]
    with pytest.raises(DataError, match=r"a_lab\.png: no such label file"):
        list_pairs(exact, tmp_path, "all")
    loose = exact.model_copy(update={"any_suffix_case": True})
    pairs = list_pairs(loose, tmp_path, "all")
    assert [(pair.image.name, pair.label.name) for pair in pairs] == [
        ("a.jpg", "a_lab.PNG"), ("b.JPG", "b_lab.png"), ("c.Jpg", "c_lab.PNG")
    ]  # fmt: skip
