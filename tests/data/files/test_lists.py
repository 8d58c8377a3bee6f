"""What a line of a list file means: one image exactly, by any of its names, from any editor; or nothing, and that is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from gkd_core.data.catalog.entries import DatasetEntry, SplitRule
from gkd_core.data.files.lists import Named, read_list, resolve
from gkd_core.data.files.reading import list_images
from gkd_core.errors import DataError

COMPOSED, APART = "caf\u00e9", "cafe\u0301"


def images_of(root: Path, text: str | bytes, names: list[str], pattern: str = "images/*.png") -> list[str]:
    """The images, below their folder, that a list of this text keeps of those that are there."""
    for name in names:
        (root / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        (root / "images" / name).touch()
    (root / "list.txt").write_bytes(text.encode() if isinstance(text, str) else text)
    entry = DatasetEntry(name="d", folder=".", images=pattern, splits={"all": SplitRule(list_in_dataset="list.txt")})
    return [path.relative_to(root / "images").as_posix() for path in list_images(entry, root, "all")]


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ("run.7", "run.7.png"),
        ("run.7.png", "run.7.png"),
        ("run", "run.png"),
        ("run.png", "run.png"),
        ("2026-01-01_12.30.45", "2026-01-01_12.30.45.png"),
        ("run.jpg", "run.png"),  # a picture's suffix is taken off where nothing is called so
        ("v1.0.jpg", "v1.0.jpg.png"),
        ("images/run.7.png", "run.7.png"),
        (".hidden", ".hidden.png"),
    ],
)
def test_a_line_means_the_image_of_exactly_that_name(tmp_path: Path, line: str, wanted: str) -> None:
    names = ["run.png", "run.7.png", "2026-01-01_12.30.45.png", "v1.0.png", "v1.0.jpg.png", ".hidden.png"]
    assert images_of(tmp_path, line, names) == [wanted]


@pytest.mark.parametrize("line", ["run.8", "ru", "run.7.txt", "run.", "other/run", "2026-01-01_12.30"])
def test_a_name_is_never_cut_until_it_fits(tmp_path: Path, line: str) -> None:
    with pytest.raises(DataError, match=r"list\.txt: '.*' is not there \(1 of 1 lines\)"):
        images_of(tmp_path, line, ["run.png", "run.7.png", "2026-01-01_12.30.45.png"])


@pytest.mark.parametrize(
    "text",
    [
        "\ufeffone\ntwo\n".encode(),
        "one\ntwo\n".encode("utf-16"),  # as PowerShell's > writes it
        b"one\r\ntwo\r\n",
        b"one\rtwo",
        b"\n\n  one  \n\ttwo\n\n",
        b"./one\n.\\two.png\n",
        b"images\\one.png\nimages/two",
    ],
)
def test_lists_are_read_as_any_editor_saves_them(tmp_path: Path, text: bytes) -> None:
    assert images_of(tmp_path, text, ["one.png", "two.png", "three.png"]) == ["one.png", "two.png"]


@pytest.mark.parametrize(("there", "line"), [(COMPOSED, APART), (APART, COMPOSED), (APART, APART + ".png"), (COMPOSED, COMPOSED)])
def test_accents_may_be_written_in_either_form(tmp_path: Path, there: str, line: str) -> None:
    assert images_of(tmp_path, line, [f"{there}.png", "cafe.png"]) == [f"{there}.png"]


def test_of_two_forms_of_one_name_the_line_means_its_own(tmp_path: Path) -> None:
    assert images_of(tmp_path, APART, [f"{COMPOSED}.png", f"{APART}.png"]) == [f"{APART}.png"]


def test_names_of_characters_that_end_lines_elsewhere_are_whole(tmp_path: Path) -> None:
    assert images_of(tmp_path, "a\u2028b\n", ["a\u2028b.png", "a.png", "b.png"]) == ["a\u2028b.png"]


@pytest.mark.parametrize(
    ("line", "names"),
    [
        ("one", ["a/one.png", "b/one.png"]),
        ("one.jpg", ["a/one.png", "b/one.png"]),
        ("one.png", ["a/one.png", "a/one.png.png"]),
        ("a/one", ["x/a/one.png", "y/a/one.png"]),
    ],
)
def test_a_line_of_two_meanings_is_refused_with_both(tmp_path: Path, line: str, names: list[str]) -> None:
    with pytest.raises(DataError, match=rf"'{line}' means 2 images \(images/{names[0]} and images/{names[1]}\); write the path"):
        images_of(tmp_path, line, names, "images/**/*.png")


@pytest.mark.parametrize("line", ["images/a/one.png", "images/a/one", "a/one", "a/one.png"])
def test_a_path_says_which_of_several_is_meant(tmp_path: Path, line: str) -> None:
    assert images_of(tmp_path, line, ["a/one.png", "b/one.png", "b/a/one.png"], "images/**/*.png") == ["a/one.png"]


def test_what_stands_around_the_wildcard_may_be_left_off_or_written() -> None:
    images = [Named("a/1", "photos/a/1_photo.png"), Named("a/1_photo", "photos/a/1_photo_photo.png")]
    for line, place in {"1": 0, "1.png": 0, "1_photo.png": None, "a/1_photo": 1, "1_photo_photo": 1, "photos/a/1": 0}.items():
        meaning = resolve([line], images)
        assert meaning.kept == ({place} if place is not None else {0, 1}), line
        assert bool(meaning.ambiguous) == (place is None)


def test_lines_that_mean_one_image_again_are_counted() -> None:
    meaning = resolve(["one", "one", "a/one.png", "two"], [Named("a/one", "x/a/one.png"), Named("a/two", "x/a/two.png")])
    assert (meaning.kept, meaning.repeated) == ({0, 1}, {"one": 3, "a/one.png": 3})


def test_a_list_that_is_no_text_is_named(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_bytes(b"\x89PNG\xff")
    with pytest.raises(DataError, match=r"list\.txt: cannot be read \(.*\); expected one image stem a line, in UTF-8"):
        read_list(tmp_path / "list.txt")
