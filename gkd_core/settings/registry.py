"""The registry of students: what they are called, and what it takes to become the champion."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field

from gkd_core.settings.base import LocalPath, PositiveFloat, Section, home_expanded

Licence = Annotated[str, Field(min_length=1, max_length=200)]
KeyFile = Annotated[Path, AfterValidator(lambda path: Path(home_expanded(str(path))))]
NonNegativeFloat = Annotated[float, Field(ge=0)]


class FieldImagesSettings(Section):
    """Images of the field, unlabelled, that ask for a new student where they are not like what the champion knows."""

    folder: LocalPath = Field(description="Folder of recent images, all below it.")
    bound: float = Field(
        gt=1,
        description="Median distance beyond which they ask for one, in which they join the proxy; 1 is the median of images that "
        "the champion knows.",
    )
    known_images: int = Field(
        1000, ge=2, description="Images of each part of what a student knows that are looked at when it is registered."
    )


class RegistrySettings(Section):
    """The registry and its gate. No stage's result depends on any of it."""

    name: str = Field(
        "gkd-student",
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$",
        max_length=100,
        description="Registered models are called by this and their source: gkd-student-gta5.",
    )
    margin: NonNegativeFloat = Field(
        0.5, description="Points of mIoU by which a challenger's mean over targets must be up at least; 0 asks for any gain."
    )
    max_drop: NonNegativeFloat = Field(1.0, description="Points by which no target domain may be down.")
    max_age_days: PositiveFloat | None = Field(
        30.0, description="Age of the champion at which redistill trains a further seed; null: age alone asks for nothing."
    )
    field_images: FieldImagesSettings | None = Field(
        None, description="Images that redistill holds against what the champion knows; null: it looks at none."
    )
    teacher_licence: Licence | None = Field(
        None, description="Licence of the teacher's weights, for the model card; null: what timm states for hub weights."
    )
    private_key: KeyFile | None = Field(
        None, description="PEM file of an elliptic-curve private key: students are signed with it when they are logged."
    )
    public_key: KeyFile | None = Field(
        None, description="PEM file of the public key: a student without a fitting signature is not promoted."
    )
    student_licence: Licence | None = Field(
        None, description="Licence under which you share the student; null: the card says that it is not stated."
    )
