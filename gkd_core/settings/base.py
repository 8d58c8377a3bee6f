"""What every section of the settings is made of: a frozen model that knows its keys, and numbers with bounds."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field


def _scalar(value: object) -> object:
    if not isinstance(value, str | int | float):
        raise ValueError("a single text, number or true/false is allowed")
    return value


def _no_truth(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError("a whole number is allowed, not true or false")
    return value


def ascending(pair: tuple[float, float]) -> tuple[float, float]:
    """The pair (low, high); `ValueError` where it is the wrong way round."""
    if pair[0] > pair[1]:
        raise ValueError("the first number must not exceed the second")
    return pair


Scalar = Annotated[str | int | float | bool, BeforeValidator(_scalar)]
PositiveInt = Annotated[int, Field(gt=0), BeforeValidator(_no_truth)]
NonNegativeInt = Annotated[int, Field(ge=0), BeforeValidator(_no_truth)]
PositiveFloat = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]
PositiveShare = Annotated[float, Field(gt=0, le=1)]


class Section(BaseModel):
    """A frozen group of settings that knows all of its keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=False, validate_default=True, allow_inf_nan=False)
