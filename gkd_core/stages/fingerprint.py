"""What decides a student: the settings that the plan's stages depend on, and the digests of what they read.

Two fingerprints that are equal give the same students, seed by seed; of two that are not, `differences` names what differs.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any, Literal

from gkd_core.records import Record
from gkd_core.stages.facts import STAGES
from gkd_core.stages.recipe import Recipe
from gkd_core.stages.run import params_of

FIELD = "data.field"  # a setting of stage 1a where images of the field join
SEED = "seed"  # not of the recipe: several seeds of one recipe are compared


class Fingerprint(Record):
    """What a run's students depend on, seeds apart.

    Attributes:
        recipe: settings by key, as plain values, `recipe_version` among them.
        data: digest by path of every input that no stage makes: pins, unpinned folders, weights and catalogs.
    """

    kind: Literal["fingerprint"] = "fingerprint"
    recipe: dict[str, Any]
    data: dict[str, str]

    @property
    def digest(self) -> str:
        """Sixteen hexadecimal digits that stand for all of it."""
        facts = json.dumps({"recipe": self.recipe, "data": self.data}, sort_keys=True)
        return hashlib.sha256(facts.encode()).hexdigest()[:16]


def fingerprint_of(recipe: Recipe, data: Mapping[str, str]) -> Fingerprint:
    """The fingerprint of a run by this recipe (paths made absolute, as in its workspace) on these inputs.

    Raises:
        GkdError: the settings ask for no possible plan.
    """
    settings: dict[str, Any] = {}
    for run in recipe.plan:
        if STAGES[run.stage].retells:
            continue
        settings |= params_of(recipe.settings, run)
    settings.pop(SEED, None)
    # As it is read back from a file: tuples are lists there.
    found = Fingerprint(recipe=json.loads(json.dumps(settings)), data=dict(data))
    # Where none join, as it was before there was such a setting.
    return found if joins_field(found) else without_field(found)


def joins_field(fingerprint: Fingerprint) -> bool:
    """Whether images of the field join the proxy."""
    return fingerprint.recipe.get(FIELD) is not None


def without_field(fingerprint: Fingerprint) -> Fingerprint:
    """The fingerprint but for the images of the field."""
    recipe = {key: value for key, value in fingerprint.recipe.items() if key != FIELD}
    section, _, key = FIELD.partition(".")
    if isinstance(recipe.get(section), dict):
        recipe[section] = {name: value for name, value in recipe[section].items() if name != key}
    folder = fingerprint.recipe.get(FIELD)
    return Fingerprint(recipe=recipe, data={path: digest for path, digest in fingerprint.data.items() if path != folder})


def differences(old: Fingerprint, new: Fingerprint) -> list[str]:
    """What has changed, a sentence each: settings by key, data by path, each with its old and new value."""
    return [
        *(f"the recipe changed: {key}: {before} → {after}" for key, before, after in _changes(old.recipe, new.recipe)),
        *(f"the data changed: {path}: {before} → {after}" for path, before, after in _changes(old.data, new.data)),
    ]


def _changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    before, after = dict(_leaves(old)), dict(_leaves(new))
    for key in sorted(before.keys() | after.keys()):
        if before.get(key) != after.get(key) or (key in before) != (key in after):
            yield key, _shown(before, key), _shown(after, key)


def _shown(leaves: Mapping[str, str], key: str) -> str:
    return leaves.get(key, "not there")


def _leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Values by dotted key, as text. A list is one value."""
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value if isinstance(value, str) else json.dumps(value)
