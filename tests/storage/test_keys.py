"""Keys that somebody hostile has written never become a file outside of the target."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from gkd_core.errors import DataError
from gkd_core.messages import shown
from gkd_core.storage.keys import Location, segments, target_file

HOSTILE = ["..", ".", "", "/", "\\", "\0", "\n", "a", "link", "b.png", "~", "C:", "é", "\ud800", "\x85", "x" * 300]
KEYS = st.lists(st.sampled_from(HOSTILE) | st.text(max_size=4), max_size=6).flatmap(
    lambda parts: st.sampled_from(["/".join(parts), "".join(parts), "/" + "/".join(parts)])
)


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A target folder that holds links to its neighbour, a file and a folder."""
    house = tmp_path_factory.mktemp("house")
    (house / "neighbour").mkdir()
    target = house / "target"
    (target / "a").mkdir(parents=True)
    (target / "link").symlink_to(house / "neighbour")
    (target / "a/link").symlink_to("/")
    (target / "b.png").symlink_to(house / "neighbour/victim")
    return house


@given(key=KEYS)
@example("../../etc/passwd")
@example("/etc/passwd")
@example("link/x")
@example("a/link/tmp/x")
@example("a\\..\\..\\x")
@example("a/../../x")
@example("x\n")
@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_key_leads_out_of_the_target(house: Path, key: str) -> None:
    target = house / "target"
    with contextlib.suppress(DataError):
        file = target_file(target, key)
        assert file.is_relative_to(target) and file.name
        # An independent oracle: where the file system itself says that the folder is.
        assert Path(os.path.realpath(file.parent)).is_relative_to(os.path.realpath(target))
        temporary = file.with_name(f"{file.name[:100]}.tmp")
        temporary.write_bytes(b"content")
        temporary.replace(file)
        assert file.read_bytes() == b"content" and not file.is_symlink()
        file.unlink()
    assert not list((house / "neighbour").iterdir())
    assert sorted(os.listdir(house)) == ["neighbour", "target"]


@given(key=KEYS | st.text())
@settings(max_examples=300)
def test_a_message_names_any_key_in_one_printable_line(key: str) -> None:
    assert shown(key).isprintable()
    try:
        parts = segments(key)
    except DataError as error:
        refusal = str(error)
    else:
        refusal = ""
        assert "/".join(parts) == key
    assert refusal.isprintable()


@pytest.mark.parametrize(
    ("key", "reason"),
    [
        ("", "it is empty"),
        ("a//b", "a segment ''"),
        ("/a", "a segment ''"),
        ("a/", "a segment ''"),
        ("a/../b", r"a segment '\.\.'"),
        ("a\\b", "a backslash"),
        ("a\0", "a control character"),
        ("a\nb", "a control character"),
        ("\ud800", "half a character"),
        ("x" * 256, "more than 255 bytes"),
        ("é" * 513, "1026 bytes"),
    ],
)
def test_what_is_wrong_with_a_key_is_said(key: str, reason: str) -> None:
    with pytest.raises(DataError, match=reason):
        segments(key)


def test_folders_are_made_and_files_in_their_place_refused(tmp_path: Path) -> None:
    assert target_file(tmp_path / "new", "a/b/c.png") == tmp_path / "new/a/b/c.png"
    assert (tmp_path / "new/a/b").is_dir()
    (tmp_path / "new/f").touch()
    with pytest.raises(DataError, match="a link or a file stands where key 'f/x' needs a folder"):
        target_file(tmp_path / "new", "f/x")
    with pytest.raises(DataError, match="a folder stands where key 'a/b' needs a file"):
        target_file(tmp_path / "new", "a/b")


def test_addresses() -> None:
    place = Location.parse("s3://bucket/a/b/")
    assert place == Location("bucket", "a/b")
    assert str(place / "c") == "s3://bucket/a/b/c"
    assert str(Location.parse("s3://bucket")) == "s3://bucket"
    assert Location("bucket") / "c" == Location("bucket", "c")


@pytest.mark.parametrize(
    "address", ["bucket/a", "http://b/a", "s3://", "s3://A/b", "s3://ab", "s3://a..b/c", "s3://bkt/../x", "s3:///x"]
)
def test_addresses_that_are_none(address: str) -> None:
    with pytest.raises(DataError):
        Location.parse(address)
