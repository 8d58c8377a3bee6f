"""What a student learns from: how it is declared, and in which proportions several parts are mixed."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from gkd_core.data.catalog.load import load_catalog
from gkd_core.data.catalog.sources import Source, whole

WEIGHTS = st.floats(0.01, 100, allow_nan=False)


def source(given: Any) -> Source:
    return Source.model_validate(given)


def test_one_split_a_list_and_weights_are_declared() -> None:
    assert source("gta5/train").parts == {"gta5/train": None}
    assert source(["gta5/train", "synthia/all"]).parts == {"gta5/train": None, "synthia/all": None}
    assert source({"gta5/train": 2, "synthia/all": 0.5}).parts == {"gta5/train": 2, "synthia/all": 0.5}


def test_a_mix_is_named_by_its_datasets() -> None:
    assert source("potsdam-rgb/train").name == "potsdam-rgb"
    assert source(["gta5/train", "synthia/all"]).name == "gta5_synthia"
    assert source(["camvid/day", "camvid/dusk"]).name == "camvid"
    assert str(source({"gta5/train": 2, "synthia/all": 0.5})) == "2 x gta5/train + 0.5 x synthia/all"


@pytest.mark.parametrize(
    ("declared", "message"),
    [
        ([], "expected dataset/split, a list of these"),
        (7, "expected dataset/split, a list of these"),
        ([1, 2], "expected dataset/split, a list of these"),
        (["a/b", "a/b"], "a part is named twice"),
        ({"a/b": 0}, "weight of a/b: expected a number above 0"),
        ({"a/b": 1, "c/d": None}, "weight of c/d: expected a number above 0"),
        ({"a/b": True}, "weight of a/b"),
        ({"a/b": float("inf")}, "weight of a/b"),
    ],
)
def test_other_declarations_are_refused(declared: object, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        source(declared)


def test_without_weights_every_image_is_seen_equally_often() -> None:
    assert source(["a/x", "b/x", "c/x"]).mix([24966, 9400, 7539]).draws == (24966, 9400, 7539)
    assert source("a/x").mix([5]) == whole(5)


def test_weights_share_out_an_epoch() -> None:
    assert source({"a/x": 1, "b/x": 1}).mix([30, 10]).draws == (20, 20)
    assert source({"a/x": 2, "b/x": 1}).mix([3, 4]).draws == (5, 2)
    assert source({"a/x": 1000, "b/x": 1}).mix([5, 5]).draws == (9, 1), "a part never vanishes"


@given(sizes=st.lists(st.integers(1, 500), min_size=1, max_size=5), data=st.data())
def test_proportions_are_as_near_as_whole_numbers_come(sizes: list[int], data: st.DataObject) -> None:
    weights = data.draw(st.lists(WEIGHTS, min_size=len(sizes), max_size=len(sizes)))
    mix = source({f"d{index}/x": weight for index, weight in enumerate(weights)}).mix(sizes)
    total = sum(sizes)
    assert sum(mix.draws) == total and min(mix.draws) >= 1
    exact = [Fraction(weight) * total / sum(map(Fraction, weights)) for weight in weights]
    if all(share >= 1 for share in exact):
        assert all(abs(drawn - share) < 1 for drawn, share in zip(mix.draws, exact, strict=True))


def test_the_papers_mixes_are_declared() -> None:
    benchmarks = load_catalog().benchmarks
    two, three = ("gta5/train", "synthia/all"), ("gta5/train", "synthia/all", "urbansyn/all")
    shape = {
        name: (item.source.references, list(item.targets)) for name, item in benchmarks.items() if len(item.source.parts) > 1
    }
    assert shape == {
        f"{prefix}2{letter}": (parts, [target])
        for prefix, parts in (("GS", two), ("GSU", three))
        for letter, target in (("C", "cityscapes"), ("B", "bdd100k"), ("M", "mapillary"))
    }
    assert (str(benchmarks["P2Res"].source), benchmarks["P2Res"].targets) == (
        "potsdam-rgb-5/train",
        {"rescuenet": "rescuenet/test"},
    )
