"""What a check says."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from gkd_core.operations.doctor.machine import Machine

Level = Literal["ok", "warning", "error"]


class Finding(BaseModel):
    """One thing that was looked at. No finding holds a secret."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    subject: str = Field(description="What was looked at.")
    level: Level = Field(description="ok; warning: a run can go wrong or be slow; error: a run, or a part of it, will not work.")
    found: str = Field(description="How it is.")
    advice: str = Field("", description="What to do about it; empty where all is well.")

    @model_validator(mode="after")
    def _advice_where_it_is_needed(self) -> Finding:
        if (self.level == "ok") == bool(self.advice):
            raise ValueError(f"{self.subject}: a warning or an error has advice, ok has none")
        return self


Check = Callable[[Machine], Iterable[Finding]]


def well(subject: str, found: str) -> Finding:
    """A finding that asks for nothing."""
    return Finding(subject=subject, level="ok", found=found, advice="")


def warning(subject: str, found: str, advice: str) -> Finding:
    """A finding of what can go wrong."""
    return Finding(subject=subject, level="warning", found=found, advice=advice)


def error(subject: str, found: str, advice: str) -> Finding:
    """A finding of what will not work."""
    return Finding(subject=subject, level="error", found=found, advice=advice)
