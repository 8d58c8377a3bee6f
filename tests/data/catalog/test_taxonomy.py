"""Label ids: the shipped tables against their sources, and the translation of any array."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from cityscapesscripts.helpers.labels import labels as official  # type: ignore[import-untyped]
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from pydantic import ValidationError

from gkd_core.data.catalog.load import Catalog, load_catalog
from gkd_core.data.catalog.taxonomy import IGNORE, LabelEncoding, NamedEncoding, Taxonomy, resolve_names, to_train_ids
from gkd_core.errors import DataError

SOMEWHERE = Path("labels/one.png")


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    return load_catalog(["camvid"])


def ids_of(catalog: Catalog, name: str) -> dict[int, int]:
    encoding = catalog.encodings[name]
    assert isinstance(encoding, LabelEncoding)
    return encoding.ids


def test_cityscapes_ids_agree_with_the_official_table(catalog: Catalog) -> None:
    evaluated = {label.id: label.trainId if 0 <= label.trainId < 19 else IGNORE for label in official}
    assert ids_of(catalog, "cityscapes-label-ids") == evaluated
    assert ids_of(catalog, "gta5-label-ids") == evaluated | {34: IGNORE}


def test_cityscapes_classes_and_colors_agree_with_the_official_table(catalog: Catalog) -> None:
    evaluated = sorted((label for label in official if 0 <= label.trainId < 19), key=lambda label: label.trainId)
    taxonomy = catalog.taxonomies["cityscapes-19"]
    assert taxonomy.classes == tuple(label.name for label in evaluated)
    assert taxonomy.colors == tuple(label.color for label in evaluated)


def test_train_id_files_are_taken_as_they_are(catalog: Catalog) -> None:
    assert ids_of(catalog, "cityscapes-train-ids") == {value: value for value in [*range(19), IGNORE]}


def test_aerial_ids_drop_the_boundary_and_move_down_by_one(catalog: Catalog) -> None:
    assert ids_of(catalog, "isprs-label-ids") == {0: IGNORE, 1: 0, 2: 1, 3: 2, 4: 3, 5: 4, 6: 5}


@pytest.fixture
def vistas(catalog: Catalog, tmp_path: Path) -> dict[str, int]:
    """Train id by Mapillary name, through a config.json that has the names in the archive's order."""
    encoding = catalog.encodings["mapillary-v1.2"]
    assert isinstance(encoding, NamedEncoding)
    names = list(encoding.classes)
    (tmp_path / "config.json").write_text(json.dumps({"labels": [{"name": name} for name in names]}))
    resolved = resolve_names(encoding, catalog.taxonomies["cityscapes-19"], tmp_path / "config.json")
    return {name: resolved.ids[index] for index, name in enumerate(names)}


def test_mapillary_has_66_names_in_the_order_of_the_archive(vistas: dict[str, int]) -> None:
    names = list(vistas)
    assert len(names) == 66
    places = {
        "animal--bird": 0,
        "construction--flat--road": 13,
        "nature--sky": 27,
        "object--vehicle--car": 55,
        "void--unlabeled": 65,
    }
    assert {name: names.index(name) for name in places} == places


@pytest.mark.parametrize(
    ("name", "train_id"),
    [
        ("construction--flat--road", 0),
        ("marking--general", 0),
        ("construction--flat--parking", 0),
        ("construction--barrier--curb", 1),
        ("construction--flat--pedestrian-area", 1),
        ("construction--barrier--guard-rail", IGNORE),
        ("construction--flat--rail-track", IGNORE),
        ("construction--structure--bridge", IGNORE),
        ("object--street-light", 5),
        ("object--support--traffic-sign-frame", 7),
        ("object--traffic-sign--back", 7),
        ("human--rider--other-rider", 12),
        ("object--vehicle--on-rails", 16),
        ("object--vehicle--caravan", IGNORE),
    ],
)
def test_mapillary_follows_the_mapping_of_the_field(vistas: dict[str, int], name: str, train_id: int) -> None:
    assert vistas[name] == train_id


def test_mapillary_reaches_every_class(vistas: dict[str, int]) -> None:
    assert set(vistas.values()) == {*range(19), IGNORE}


def test_names_of_another_version_are_refused(catalog: Catalog, tmp_path: Path) -> None:
    encoding = catalog.encodings["mapillary-v1.2"]
    assert isinstance(encoding, NamedEncoding)
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"labels": [{"name": "construction--barrier--road-median"}]}))
    with pytest.raises(DataError, match="road-median"):
        resolve_names(encoding, catalog.taxonomies["cityscapes-19"], path)
    path.write_text("[1, 2]")
    with pytest.raises(DataError, match=r"config\.json: expected"):
        resolve_names(encoding, catalog.taxonomies["cityscapes-19"], path)
    path.unlink()
    with pytest.raises(DataError, match="no such file"):
        resolve_names(encoding, catalog.taxonomies["cityscapes-19"], path)


def test_an_id_outside_the_table_names_file_id_and_allowed_ids() -> None:
    encoding = LabelEncoding(taxonomy="t", ids={0: 0, 1: 1, 2: 1, 255: IGNORE})
    with pytest.raises(DataError) as error:
        to_train_ids(np.array([[0, 7]], dtype=np.uint8), encoding, SOMEWHERE)
    assert "labels/one.png" in str(error.value)
    assert "ids 7 " in str(error.value)
    assert "0-2, 255" in str(error.value)


def test_float_labels_are_refused() -> None:
    with pytest.raises(DataError, match="float32"):
        to_train_ids(np.zeros((2, 2), dtype=np.float32), LabelEncoding(taxonomy="t", ids={0: 0}), SOMEWHERE)


@given(
    ids=st.dictionaries(st.integers(-1, 255), st.integers(0, IGNORE), min_size=1),
    label=npst.arrays(np.int16, npst.array_shapes(min_dims=2, max_dims=2, max_side=6), elements=st.integers(-3, 300)),
)
def test_translation_equals_a_dictionary_look_up(ids: dict[int, int], label: np.ndarray) -> None:
    encoding = LabelEncoding(taxonomy="t", ids=ids)
    if set(label.ravel().tolist()) <= set(ids):
        translated = to_train_ids(label, encoding, SOMEWHERE)
        assert translated.dtype == np.uint8
        assert translated.tolist() == [[ids[value] for value in row] for row in label.tolist()]
    else:
        with pytest.raises(DataError):
            to_train_ids(label, encoding, SOMEWHERE)


def test_a_taxonomy_has_one_color_a_class() -> None:
    with pytest.raises(ValueError, match="2 classes but 1 colors"):
        Taxonomy(name="t", classes=("a", "b"), colors=((0, 0, 0),))


@pytest.mark.parametrize("count", [256, 300, 1000])
def test_more_classes_than_train_ids_are_refused(count: int) -> None:
    names, colors = [f"class {number}" for number in range(count)], [(0, 0, 0)] * count
    with pytest.raises(ValidationError, match=f"{count} classes; at most 255 are possible: .* 255 means ignored"):
        Taxonomy(name="many", classes=names, colors=colors)
    assert len(Taxonomy(name="many", classes=names[:255], colors=colors[:255]).classes) == 255


@pytest.mark.parametrize("train_id", [256, 300, -1])
def test_a_train_id_beyond_a_byte_is_refused(train_id: int) -> None:
    with pytest.raises(ValidationError, match="ids"):
        LabelEncoding(taxonomy="many", ids={0: train_id})
