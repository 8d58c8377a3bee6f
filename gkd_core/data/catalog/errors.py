"""What is wrong with a catalog file, one line each: the file, the key, what was given and what is allowed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from gkd_core.data.catalog.entries import DatasetEntry, Protocol, SplitRule
from gkd_core.data.catalog.taxonomy import ColorEncoding, LabelEncoding, NamedEncoding, Taxonomy
from gkd_core.messages import did_you_mean, given_value, one_line, shown
from gkd_core.untrusted import LABEL, PLAIN_NAME

Key = tuple[str, ...]
PATTERNS = {
    f"^{PLAIN_NAME.pattern}$": "a name has letters, digits and . _ + - only, and begins with a letter, a digit or _",
    f"^{LABEL.pattern}$": "expected letters, digits, spaces and . , : ( ) & / + # - _ only, beginning with a letter or digit",
}
ENCODINGS: dict[str, type[BaseModel]] = {kind.__name__: kind for kind in (LabelEncoding, NamedEncoding, ColorEncoding)}


def describe(error: ValidationError, files: Mapping[tuple[str, str], Path], benchmark: type[BaseModel]) -> str:
    """One line for each mistake. `files` says which file declares a section's name."""
    items = error.errors()
    misspelt = {item["loc"][:-1] for item in items if item["type"] == "extra_forbidden"}
    # A key that is written wrong is missing too: one line is enough.
    told = [item for item in items if not (item["type"] == "missing" and item["loc"][:-1] in misspelt)]
    return "\n".join(_line(item, files, benchmark) for item in told)


def _line(item: Mapping[str, Any], files: Mapping[tuple[str, str], Path], benchmark: type[BaseModel]) -> str:
    location = tuple(str(part) for part in item["loc"])
    file = files[location[0], location[1]]
    key = shown(".".join(part for part in location if part not in ENCODINGS and part != "[key]"))
    given = item.get("input")
    if item["type"] == "extra_forbidden":
        allowed = list(_model_at(location[:-1], benchmark).model_fields)
        return f"{file}: {key}: unknown key; allowed here: {', '.join(sorted(allowed))}{did_you_mean(location[-1], allowed)}"
    if item["type"] == "missing":
        return f"{file}: {key}: missing; it must be given"
    said = "" if isinstance(given, dict) else f"given {given_value(given)}; "
    return f"{file}: {key}: {said}{_reason(item)}"


def _reason(item: Mapping[str, Any]) -> str:
    if item["type"] == "string_pattern_mismatch" and item["ctx"]["pattern"] in PATTERNS:
        return PATTERNS[item["ctx"]["pattern"]]
    if item["type"] == "value_error":
        return one_line(item["ctx"]["error"], 500)
    message = one_line(item["msg"], 500)
    # 16E5 and 007 are numbers to YAML.
    quotes = "; quote it" if item["type"] == "string_type" and isinstance(item["input"], int | float) else ""
    return f"{message[0].lower()}{message[1:]}{quotes}"


def _model_at(location: Key, benchmark: type[BaseModel]) -> type[BaseModel]:
    section, _, *rest = location
    if section == "encodings":
        return ENCODINGS[rest[0]]
    if section == "datasets" and rest:
        return SplitRule if rest[0] == "splits" else Protocol
    models: dict[str, type[BaseModel]] = {"taxonomies": Taxonomy, "datasets": DatasetEntry, "benchmarks": benchmark}
    return models[section]
