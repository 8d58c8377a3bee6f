"""Pins read from DVC's files, the inputs that they cover, and what is told of a difference."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gkd_core.errors import DataError
from gkd_core.versioning.pins import Difference, Pin, compare, pins_of, read_pin, refusal

PIN = "outs:\n- md5: aa.dir\n  size: 12\n  nfiles: 3\n  hash: md5\n  path: {name}\n"
LISTING = st.dictionaries(st.text("abc/", min_size=1, max_size=4), st.sampled_from("123"), max_size=8)


def write_pin(project: Path, path: str, more: str = "") -> None:
    file = project / f"{path}.dvc"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(PIN.format(name=file.stem) + more)


def test_a_pin_states_content_and_origin(tmp_path: Path) -> None:
    write_pin(tmp_path, "data/a", "meta:\n  source: s3://b/a\n  revision: 5e\n")
    write_pin(tmp_path, "data/b", "deps:\n- path: s3://b/b\n  etag: 7f\nfrozen: true\n")
    facts = {"md5": "aa.dir", "files": 3, "bytes": 12}
    assert read_pin(tmp_path, "data/a") == Pin(path="data/a", source="s3://b/a", source_revision="5e", **facts)
    assert read_pin(tmp_path, "data/b") == Pin(path="data/b", source="s3://b/b", source_revision="7f", **facts)


def test_a_single_file_is_one_file(tmp_path: Path) -> None:
    (tmp_path / "w.pth.dvc").write_text("outs:\n- {md5: bb, size: 4, hash: md5, path: w.pth}\n")
    assert read_pin(tmp_path, "w.pth") == Pin(path="w.pth", md5="bb", files=1, bytes=4)


@pytest.mark.parametrize(
    "text", ["", "outs: []", "outs: [{path: a}]", "<<<<<<< HEAD\nouts:", "outs: 3", "[1]", "outs:\n- {md5: [], size: x, path: a}"]
)
def test_a_broken_pin_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.dvc").write_text(text)
    with pytest.raises(DataError, match=r"^a\.dvc: not a pin; .* git checkout a\.dvc$"):
        read_pin(tmp_path, "a")


@pytest.mark.parametrize("path", ["../../etc", "b", "/etc", "a/b"])
def test_a_pin_of_another_place_is_refused(tmp_path: Path, path: str) -> None:
    (tmp_path / "a.dvc").write_text(PIN.format(name=path))
    with pytest.raises(DataError, match=f"a.dvc: pins '{path}' instead of 'a'"):
        read_pin(tmp_path, "a")


def test_inputs_are_covered_by_the_pin_above_them(tmp_path: Path) -> None:
    write_pin(tmp_path, "data/acdc")
    write_pin(tmp_path, "data/shards/gta5")
    write_pin(tmp_path, "weights/teacher.pth")
    inputs = [
        "data/bsds",
        "data/bsds/images",
        "data/acdc/rgb/night",
        "data/acdc/gt",
        "data/shards/gta5/train",
        "weights/teacher.pth",
    ]
    found = pins_of(tmp_path, [*map(Path, inputs), tmp_path / "data/acdc/extra", Path("/elsewhere/images")])
    assert [pin.path for pin in found.pins] == ["data/acdc", "data/shards/gta5", "weights/teacher.pth"]
    assert found.unpinned == ("data/bsds", "/elsewhere/images")


def test_no_pin_outside_the_project_counts(tmp_path: Path) -> None:
    write_pin(tmp_path, "outside")
    project = tmp_path / "project"
    project.mkdir()
    assert pins_of(project, [tmp_path / "outside"]).pins == ()


@given(LISTING, LISTING)
def test_a_difference_leads_from_the_pin_to_what_is_there(pinned: dict[str, str], present: dict[str, str]) -> None:
    difference = compare(pinned, present)
    rebuilt = {name: digest for name, digest in pinned.items() if name not in difference.missing}
    rebuilt |= {name: present[name] for name in (*difference.changed, *difference.added)}
    assert rebuilt == present
    assert all(pinned[name] != present[name] for name in difference.changed)
    assert (difference == Difference((), (), ())) == (pinned == present)


def test_what_to_do_depends_on_the_difference() -> None:
    pin = Pin(path="data/a", md5="aa.dir", files=3, bytes=12)
    half = refusal(pin, Difference(("x", "y"), (), ()))
    assert "2 of 3 files are missing, such as x. Fetch the rest: dvc pull data/a.dvc" in half
    dirty = refusal(pin, Difference(("x",), ("z",), ("new",)))
    assert "1 changed (such as z), 1 missing (such as x), 1 not of the pin (such as new)" in dirty
    assert "gkd data pin data/a" in dirty and "dvc checkout --force data/a.dvc" in dirty
    assert "dvc fetch data/a.dvc" in refusal(pin, None)
