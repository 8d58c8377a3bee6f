"""What prefect.yaml promises about the flows, and how their forms come out."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from prefect.utilities.importtools import import_object
from prefect.utilities.schema_tools.validation import ValidationError, validate

from gkd_core.settings import profile_names

REPOSITORY = Path(__file__).parents[2]
SETTINGS = ["profile", "settings", "overrides"]
PARAMETERS = {
    "full-pipeline": SETTINGS,
    "compare": [*SETTINGS, "methods", "students", "label_fractions", "seeds", "at_once"],
    "evaluate": ["model", "domains", *SETTINGS],
}


@pytest.fixture(scope="module")
def deployments() -> dict[str, dict[str, Any]]:
    tree = yaml.safe_load((REPOSITORY / "prefect.yaml").read_text(encoding="utf-8"))
    return {item["name"]: item for item in tree["deployments"]}


def _flow(deployment: dict[str, Any]) -> Any:
    path, _, function = deployment["entrypoint"].partition(":")
    return import_object(f"{REPOSITORY / path}:{function}")


def _schema(deployment: dict[str, Any]) -> dict[str, Any]:
    return dict(_flow(deployment).parameters.model_dump())


def test_every_entrypoint_is_a_flow_gkd_with_its_bad_parameters_refused(deployments: dict[str, dict[str, Any]]) -> None:
    assert deployments.keys() >= PARAMETERS.keys()
    for deployment in deployments.values():
        assert _flow(deployment).name == "gkd"
        assert deployment["enforce_parameter_schema"] is True
        assert deployment["description"] and deployment["work_pool"] == {"name": "gkd"}
        assert deployment["concurrency_limit"]["limit"] >= 1


@pytest.mark.parametrize("name", PARAMETERS)
def test_the_form_has_its_fields_in_order_each_with_a_description(deployments: dict[str, dict[str, Any]], name: str) -> None:
    schema = _schema(deployments[name])
    fields = sorted(schema["properties"].items(), key=lambda item: item[1]["position"])
    assert [key for key, _ in fields] == PARAMETERS[name]
    assert all(field["description"] and field["title"] == key for key, field in fields)
    assert schema["properties"]["settings"]["default"] == {}
    assert schema["properties"]["profile"]["anyOf"] == [{"enum": profile_names(), "type": "string"}, {"type": "null"}]
    assert schema.get("required", []) == (["model"] if name == "evaluate" else [])


@pytest.mark.parametrize(
    ("name", "parameters", "words"),
    [
        ("full-pipeline", {"settings": {"learn_task": {"updatez": 5}}}, r"'settings\.learn_task'.*updatez"),
        ("full-pipeline", {"settings": {"learn_task": {"updates": "x"}}}, r"settings\.learn_task\.updates"),
        ("full-pipeline", {"settings": {"learn_task": {"label_fraction": 2}}}, r"label_fraction.*maximum"),
        ("full-pipeline", {"settings": {"data": {"world": {"seeed": 1}}}}, r"settings\.data\.world.*seeed"),
        ("full-pipeline", {"profile": "dmo"}, r"'profile'.*'dmo' is not one of"),
        ("compare", {"methods": ["gdk"]}, r"methods.*'gdk' is not one of"),
        ("compare", {"seeds": []}, r"seeds"),
        ("compare", {"label_fractions": [0]}, r"label_fractions"),
        ("compare", {"at_once": 0}, r"at_once"),
        ("evaluate", {"model": 5}, r"model"),
    ],
)
def test_the_server_refuses_by_name(
    deployments: dict[str, dict[str, Any]], name: str, parameters: dict[str, Any], words: str
) -> None:
    schema = _schema(deployments[name])
    with pytest.raises(ValidationError) as caught:
        validate(parameters, schema, raise_on_error=True, ignore_required=True)
    assert re.search(words, str(caught.value))


def test_the_server_takes_what_is_right(deployments: dict[str, dict[str, Any]]) -> None:
    good = {"profile": None, "settings": {"learn_task": {"updates": 5, "clip_norm": None}, "data": {"world": None}}}
    validate(good, _schema(deployments["full-pipeline"]), raise_on_error=True, ignore_required=True)


def test_no_machines_path_is_written_down() -> None:
    text = (REPOSITORY / "prefect.yaml").read_text(encoding="utf-8")
    # A path that begins at the root or at a home: nothing of a name stands before its slash.
    assert re.findall(r"(?<![\w.*}])[/~][\w~/.]+", text) == []


def test_gkd_core_knows_nothing_of_prefect_or_the_flows() -> None:
    for file in (REPOSITORY / "gkd_core").rglob("*.py"):
        text = file.read_text(encoding="utf-8")
        for word in ("import prefect", "from prefect", "import flows", "from flows"):
            assert word not in text, f"{file}: {word}"
