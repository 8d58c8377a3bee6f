"""The form of the settings: its fields are those of the settings, and only what was given counts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from gkd_core.errors import SettingsError
from gkd_core.settings import Changes, Section, Settings, SettingsChanges, load_settings
from gkd_core.settings.changes import changes_of


def _pairs(section: type[BaseModel], changes: type[BaseModel]) -> Iterator[tuple[type[BaseModel], type[BaseModel]]]:
    """Every section below one, with its form."""
    yield section, changes
    for name, field in section.model_fields.items():
        below, form = (
            next((kind for kind in getattr(f.annotation, "__args__", None) or (f.annotation,) if _is_model(kind)), None)
            for f in (field, changes.model_fields[name])
        )
        if below is not None and form is not None:
            yield from _pairs(below, form)


def _is_model(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def test_every_section_has_a_form_with_its_fields_in_order_and_their_descriptions() -> None:
    pairs = list(_pairs(Settings, SettingsChanges))
    assert len(pairs) > 10
    for section, form in pairs:
        assert issubclass(section, Section) and issubclass(form, Changes)
        assert list(form.model_fields) == list(section.model_fields)
        described = {name: field.description for name, field in section.model_fields.items()}
        assert {name: field.description for name, field in form.model_fields.items()} == described


def test_no_field_is_required_or_has_a_default_that_a_form_would_send() -> None:
    schema = SettingsChanges.model_json_schema()
    for form in (schema, *schema["$defs"].values()):
        assert form["additionalProperties"] is False
        assert "required" not in form
        for name, field in form["properties"].items():
            assert "default" not in field, f"{form['title']}.{name}"
            assert field["title"] == name and field["description"]


def test_the_schema_keeps_types_bounds_and_choices() -> None:
    schema = SettingsChanges.model_json_schema()
    task = schema["$defs"]["LearnTaskChanges"]["properties"]
    assert task["updates"].items() >= {"type": "integer", "exclusiveMinimum": 0}.items()
    assert task["decoder"]["enum"] == ["linear", "segformer", "mask2former"]
    assert {"type": "null"} in task["clip_norm"]["anyOf"]
    assert schema["properties"]["learn_task"]["$ref"].endswith("/LearnTaskChanges")


def test_what_was_left_out_stays_and_null_is_a_value() -> None:
    tree = {"seed": 3, "data": {"world": None, "root": "/data"}, "evaluate": {"window": [32, 32], "stride": [32, 32]}}
    changes = SettingsChanges.model_validate(tree)
    assert changes.tree() == tree
    assert SettingsChanges.model_validate_json(changes.model_dump_json()).tree() == tree
    settings = load_settings(None, "demo", changes=changes.tree())
    assert settings.data.world is None and settings.data.root == "/data"
    assert settings.learn_task == load_settings(None, "demo").learn_task
    assert SettingsChanges().tree() == {}


def test_overrides_go_over_changes_and_changes_over_the_profile() -> None:
    changes = {"seed": 5, "learn_task": {"updates": 7, "lr": 0.5}}
    settings = load_settings(None, "demo", ["learn_task.updates=9"], changes)
    assert (settings.seed, settings.learn_task.updates, settings.learn_task.lr) == (5, 9, 0.5)


def test_a_change_goes_on_from_an_encoder_given_as_one_text(tmp_path: Any) -> None:
    params = tmp_path / "params.yaml"
    params.write_text("student: vit_tiny_patch16_224@random\n", encoding="utf-8")
    student = load_settings(params, changes={"student": {"patch_size": 8}}).student
    assert (student.arch, student.weights, student.patch_size) == ("vit_tiny_patch16_224", "random", 8)


@pytest.mark.parametrize(
    ("tree", "key"),
    [
        ({"learn_task": {"updatez": 5}}, "learn_task.updatez"),
        ({"learn_task": {"updates": "many"}}, "learn_task.updates"),
        ({"learn_task": {"updates": None}}, "learn_task.updates"),
        ({"learn_task": {"updates": True}}, "learn_task.updates"),
        ({"learn_task": {"label_fraction": 1.5}}, "learn_task.label_fraction"),
        ({"student": {"weights": "somewhere"}}, "student.weights"),
        ({"distill_proxy": {"crop_scale": [1.0, 0.1]}}, "distill_proxy.crop_scale"),
        ({"nonsense": 1}, "nonsense"),
    ],
)
def test_wrong_keys_and_values_are_refused_by_name(tree: dict[str, Any], key: str) -> None:
    with pytest.raises(ValidationError) as caught:
        SettingsChanges.model_validate(tree)
    (error,) = caught.value.errors()
    assert ".".join(map(str, error["loc"])) == key


def test_what_fields_must_be_to_each_other_is_checked_on_the_whole_tree() -> None:
    changes = SettingsChanges.model_validate({"evaluate": {"stride": [999, 999]}})
    with pytest.raises(SettingsError, match=r"evaluate: stride .* exceeds window"):
        load_settings(None, "demo", changes=changes.tree())


def test_a_form_is_made_once() -> None:
    assert changes_of(Settings) is SettingsChanges
