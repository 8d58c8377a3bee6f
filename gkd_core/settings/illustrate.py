"""Which pictures of a student are drawn."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from gkd_core.settings.base import NonNegativeInt, PositiveInt, Section

PictureKind = Literal["panel", "features", "attention"]


def _each_once(kinds: tuple[PictureKind, ...]) -> tuple[PictureKind, ...]:
    if len(set(kinds)) != len(kinds):
        raise ValueError("a kind of picture is named twice")
    return kinds


class IllustrateSettings(Section):
    """Pictures of what a student sees. They change no other stage's result."""

    images: NonNegativeInt = Field(
        2, description="Images of each domain, evenly spaced over its list and the same for every method; 0 leaves the stage out."
    )
    kinds: Annotated[tuple[PictureKind, ...], AfterValidator(_each_once)] = Field(
        ("panel", "features", "attention"),
        min_length=1,
        description="panel: image, truth, prediction; features: principal components of teacher and student, after a "
        "distillation; attention: where query-based soft distillation looks, for gkd.",
    )
    pixels: Annotated[PositiveInt, Field(ge=64)] = Field(192, description="Longest edge at which an image is shown.")
