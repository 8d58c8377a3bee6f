"""Changes to the settings, as a model of their own: the tree with every section and field optional.

A form can be made of it, and a run refused by name before it starts: keys, types and bounds are those of `Settings`. What
fields must be to each other is checked where the changes have been put over a whole tree.
"""

from __future__ import annotations

import types
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, create_model, model_serializer

from gkd_core.settings.base import Section
from gkd_core.settings.reading import profile_names
from gkd_core.settings.tree import Settings


class Changes(BaseModel):
    """Changes to one section. A field that was not given stays as it is; an explicit null is a value."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @model_serializer
    def _given_only(self) -> dict[str, Any]:
        """Without this, what was left out would come back as null from wherever a run's parameters are kept."""
        return {name: getattr(self, name) for name in type(self).model_fields if name in self.model_fields_set}

    def tree(self) -> dict[str, Any]:
        """What was given, as plain nested values."""
        return self.model_dump(mode="json")


@cache
def changes_of(section: type[Section]) -> type[Changes]:
    """The model of changes to a section: fields in the section's order, with its types, bounds and descriptions."""
    fields: dict[str, Any] = {}
    for name, field in section.model_fields.items():
        annotation = _with_sections_replaced(field.annotation)
        for rule in field.metadata:
            annotation = Annotated[annotation, rule]
        # No default in the schema: a form that showed one would send it, and so change what it was not asked to.
        fields[name] = (annotation, Field(default_factory=_absent, title=name, description=field.description))
    name = f"{section.__name__.removesuffix('Settings') or 'Settings'}Changes"
    model: type[Changes] = create_model(name, __base__=Changes, __doc__=section.__doc__, **fields)
    return model


def _absent() -> None:
    return None


def _with_sections_replaced(annotation: Any) -> Any:
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return changes_of(annotation)
    if get_origin(annotation) in (Union, types.UnionType):
        return Union[tuple(_with_sections_replaced(kind) for kind in get_args(annotation))]  # noqa: UP007  # made from a tuple
    return annotation


if TYPE_CHECKING:
    SettingsChanges = Changes
    ProfileName = str
else:
    SettingsChanges = changes_of(Settings)
    ProfileName = Literal[tuple(profile_names())]
