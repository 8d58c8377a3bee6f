"""What every section of the settings is made of: a frozen model that knows its keys, and numbers with bounds."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field


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


def home_expanded(path: str) -> str:
    """A path with the home folder in the place of a leading `~` or `~user`; `ValueError` where nobody is called so.

    Nothing else in it is replaced: variables are the shell's, and a `$` of ours would be part of a folder's name.
    """
    if not path.startswith("~"):
        return path
    try:
        return str(Path(path).expanduser())
    except RuntimeError:
        raise ValueError(f"{path.partition('/')[0]}: no home folder of that user is known here; write the path out") from None


LocalPath = Annotated[str, AfterValidator(home_expanded)]
"""A path on this machine, or an address or name in its place: a leading `~` is the home folder, all else is literal."""
Scalar = Annotated[str | int | float | bool, BeforeValidator(_scalar)]
PositiveInt = Annotated[int, Field(gt=0), BeforeValidator(_no_truth)]
NonNegativeInt = Annotated[int, Field(ge=0), BeforeValidator(_no_truth)]
PositiveFloat = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]
PositiveShare = Annotated[float, Field(gt=0, le=1)]


class Section(BaseModel):
    """A frozen group of settings that knows all of its keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=False, validate_default=True, allow_inf_nan=False)
