"""Settings from files, profiles and the command line; what is wrong with them in one line that names the key."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from gkd_core.documents import DocumentError, dump_yaml, parse_yaml, read_yaml
from gkd_core.errors import SettingsError
from gkd_core.messages import did_you_mean, given_value, one_line, shown, without_passwords
from gkd_core.settings.encoder import EncoderSettings, parse_spec
from gkd_core.settings.tree import Settings

LONGEST_REASON = 500
PROFILES = resources.files("gkd_core") / "profiles"


def profile_names() -> list[str]:
    """Names of the profiles shipped with the package, in alphabetical order."""
    return sorted(entry.name.removesuffix(".yaml") for entry in PROFILES.iterdir() if entry.name.endswith(".yaml"))


def load_settings(
    params: Path | None = None,
    profile: str | None = None,
    overrides: Sequence[str] = (),
    changes: Mapping[str, Any] | None = None,
) -> Settings:
    """Read the settings of one run.

    The tree starts from the defaults overlaid by `profile` where one is named, else from the file `params`
    (missing keys keep their defaults). `changes`, a part of the tree (`changes.py` is its form), goes on top, and on top of
    that `overrides` of the form `a.b=value`, their values read as YAML.

    Raises:
        SettingsError: a file cannot be read, or a key is unknown, of the wrong type or impossible.
    """
    tree = Settings().model_dump(mode="json")
    if profile is not None:
        tree = _fill(tree, _read_profile(profile))
    elif params is not None:
        tree = _fill(tree, read_yaml_mapping(params))
    tree = _fill(tree, changes or {})
    for override in overrides:
        _apply_override(tree, override)
    return settings_from_tree(tree)


def settings_from_tree(tree: Mapping[str, Any]) -> Settings:
    """Validate a plain mapping into `Settings`; `SettingsError` has one line for each bad key."""
    try:
        return Settings.model_validate(tree)
    except ValidationError as error:
        raise SettingsError("\n".join(_describe(item) for item in error.errors())) from None


def dump_settings(settings: Settings) -> str:
    """The whole tree as YAML, in the order of the fields; `load_settings` reads it back unchanged."""
    return dump_yaml(settings.model_dump(mode="json"))


def read_yaml_mapping(path: Path) -> dict[str, Any]:
    """Read a YAML file whose top level is a mapping (an empty file gives an empty one)."""
    try:
        tree = read_yaml(path)
    except FileNotFoundError:
        raise SettingsError(
            f"{path}: no such file; give --profile ({', '.join(profile_names())}) or run where params.yaml lies"
        ) from None
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read ({error.strerror or one_line(error)})") from None
    except DocumentError as error:
        raise SettingsError(f"{path}: not valid YAML: {error}") from None
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise SettingsError(f"{path}: expected 'key: value' lines at the top level, found a {type(tree).__name__}")
    return tree


def _read_profile(name: str) -> dict[str, Any]:
    if name not in profile_names():
        hint = did_you_mean(name, profile_names())
        raise SettingsError(f"--profile: unknown profile '{shown(name)}'; allowed: {', '.join(profile_names())}{hint}")
    with resources.as_file(PROFILES / f"{name}.yaml") as path:
        return read_yaml_mapping(path)


def _fill(defaults: dict[str, Any], overlay: Mapping[str, Any]) -> dict[str, Any]:
    """`defaults` with every leaf of `overlay` put over it; free-form mappings (`options`) are replaced whole."""
    filled = dict(defaults)
    for key, value in overlay.items():
        below = filled.get(key)
        if isinstance(below, str) and isinstance(value, Mapping):
            below = _spelled_out(f"{key}:", below)
        nested = isinstance(value, Mapping) and isinstance(below, dict) and key != "options"
        filled[key] = _fill(below, value) if nested and isinstance(below, dict) else value
    return filled


def _apply_override(tree: dict[str, Any], override: str) -> None:
    dotted, equals, text = override.partition("=")
    said = shown(without_passwords(override))
    if not equals or not dotted.strip():
        raise SettingsError(f"--set {said}: expected key=value, such as --set distill_proxy.updates=200")
    try:
        value = parse_yaml(text)
    except DocumentError as error:
        raise SettingsError(f"--set {said}: the value of '{shown(dotted)}' is not valid YAML ({error}); quote it") from None
    *parents, leaf = dotted.strip().split(".")
    node = tree
    for depth, parent in enumerate(parents):
        child = node.setdefault(parent, {})
        if isinstance(child, str) and _section(parents[: depth + 1]) is EncoderSettings:
            child = node[parent] = _spelled_out(f"--set {said}:", child)
        if not isinstance(child, dict):
            where = shown(".".join(parents[: depth + 1]))
            raise SettingsError(f"--set {said}: '{where}' is {given_value(child)}, it has no keys below it")
        node = child
    node[leaf] = value


def _describe(item: Mapping[str, Any]) -> str:
    """One line for one pydantic error: the key, what was given, what is allowed."""
    key = shown(".".join(str(part) for part in item["loc"]))
    given = item.get("input")
    if item["type"] == "extra_forbidden":
        siblings = _siblings(item["loc"])
        hint = did_you_mean(str(item["loc"][-1]), siblings)
        return f"{key}: unknown key (given: {given_value(given)}); allowed here: {', '.join(siblings)}{hint}"
    if item["type"] == "value_error":
        reason = one_line(item["ctx"]["error"], LONGEST_REASON)
        return f"{key}: {reason}" if isinstance(given, dict) else f"{key}: given {given_value(given)}; {reason}"
    reason = one_line(item["msg"], LONGEST_REASON)
    return f"{key}: given {given_value(given)}; {reason[0].lower()}{reason[1:]}"


def _siblings(location: tuple[Any, ...]) -> list[str]:
    section = _section(location[:-1])
    return [] if section is None else list(section.model_fields)


def _section(path: Sequence[Any]) -> type[BaseModel] | None:
    """The section at a path of keys; None where there is none."""
    node: Any = Settings
    for part in path:
        field = node.model_fields.get(part)
        kinds = () if field is None else _kinds(field.annotation)
        node = next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)), None)
        if node is None:
            return None
    section: type[BaseModel] = node
    return section


def _spelled_out(where: str, spec: str) -> dict[str, Any]:
    """An encoder given as one text, as keys that a change can go on from."""
    try:
        return dict(parse_spec(spec))
    except ValueError as error:
        raise SettingsError(f"{where} given {given_value(spec)}; {one_line(error)}") from None


def _kinds(annotation: Any) -> tuple[Any, ...]:
    return getattr(annotation, "__args__", None) or (annotation,)
