"""What a person names as images, and the names of their outputs: each once, in order, no two alike."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gkd_core.errors import DataError
from gkd_core.predict.inputs import Input, _told_apart, find_inputs
from tests.security.test_one_line import HOSTILE


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("p/b.jpg", "p/a.PNG", "p/deep/er/c.tiff", "p/notes.txt", "p/d.json", "p/film.mp4", "other/a.png", "day[1].png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


def names(*given: str, output: str = "out") -> dict[str, str]:
    return {item.given: str(item.name) for item in find_inputs(given, Path(output))}


def test_a_folder_is_all_images_and_videos_below_it_in_order(tree: Path) -> None:
    expected = {"p/a.PNG": "a", "p/b.jpg": "b", "p/deep/er/c.tiff": "deep/er/c", "p/film.mp4": "film.mp4"}
    assert list(names("p").items()) == list(expected.items())
    assert [item.is_video for item in find_inputs(["p"], Path("out"))] == [False, False, False, True]


def test_files_globs_and_lists(tree: Path) -> None:
    assert names("p/b.jpg", "nowhere.png") == {"p/b.jpg": "b", "nowhere.png": "nowhere"}
    assert names("p/**/*.*") == {"p/a.PNG": "a", "p/b.jpg": "b", "p/deep/er/c.tiff": "deep/er/c", "p/film.mp4": "film.mp4"}
    assert names("day[1].png") == {"day[1].png": "day[1]"}, "a file of that name is no glob"
    (tree / "p/list.txt").write_text("b.jpg\n\n../other/a.png\ndeep/er/c.tiff\n")
    assert names("p/list.txt") == {"p/b.jpg": "b", "p/../other/a.png": "a", "p/deep/er/c.tiff": "deep/er/c"}


def test_an_image_that_is_named_twice_counts_once(tree: Path) -> None:
    assert list(names("p/b.jpg", "p", "./p/b.jpg", str(tree / "p/b.jpg"))) == [
        "p/b.jpg",
        "p/a.PNG",
        "p/deep/er/c.tiff",
        "p/film.mp4",
    ]


@pytest.mark.parametrize("given", [text for text in HOSTILE if text not in ("/", "..", "../..")], ids=ascii)
def test_whatever_is_given_is_a_name_or_one_line(tree: Path, given: str) -> None:
    found, said = [], ""
    try:
        found = find_inputs([given], tree / "out")
    except (DataError, OSError) as refused:
        said = str(refused)
    assert "\n" not in said
    assert all(".." not in item.name.parts and not item.name.is_absolute() for item in found)


def test_outputs_of_an_earlier_call_are_no_inputs(tree: Path) -> None:
    (tree / "p/out/labels").mkdir(parents=True)
    (tree / "p/out/labels/b.png").touch()
    assert "p/out/labels/b.png" not in names("p", output="p/out")
    with pytest.raises(DataError, match="nothing in it but what lies in"):
        names("p/out", output="p/out")


def test_names_that_two_images_share_are_told_apart(tree: Path) -> None:
    for name in ("p/b.png", "p/B.webp", "p/b.jpg.png"):
        (tree / name).touch()
    found = names("p/b.jpg", "p/b.png", "p/B.webp", "p/b.jpg.png", "p/a.PNG", "other/a.png", "p/deep/er/c.tiff")
    assert found == {
        "p/b.jpg": "b.jpg~2", "p/b.png": "b.png", "p/B.webp": "B.webp", "p/b.jpg.png": "b.jpg", "p/a.PNG": "a.PNG",
        "other/a.png": "a.png~2", "p/deep/er/c.tiff": "c",
    }  # fmt: skip


@given(
    st.lists(
        st.tuples(st.sampled_from(["a", "A", "b", "a.png", "a.png~2", "c/a"]), st.sampled_from([".png", ".PNG", ".jpg", ""]))
    )
)
def test_no_two_outputs_have_one_name(given: list[tuple[str, str]]) -> None:
    inputs = [Input(Path(f"{stem}{suffix}"), stem, PurePosixPath(stem)) for stem, suffix in given]
    found = [str(item.name).casefold() for item in _told_apart(inputs)]
    assert len(set(found)) == len(found) == len(given)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("empty", "empty: no image and no video in this folder"),
        ("*.webp", r"\*.webp: no image and no video of such a name"),
        ("none.txt", "none.txt: no such list of images"),
        ("blank.txt", "blank.txt: an empty list"),
        ("binary.txt", "binary.txt: no list of images"),
        ("a\0b.png", "no path of a file or folder"),
    ],
)
def test_a_name_that_stands_for_nothing_is_one_line(tree: Path, given: str, message: str) -> None:
    (tree / "empty").mkdir()
    (tree / "blank.txt").write_text("\n \n")
    (tree / "binary.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match=message) as refused:
        find_inputs([given], tree / "out")
    assert "\n" not in str(refused.value)
