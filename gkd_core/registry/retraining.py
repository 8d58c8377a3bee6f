"""Whether a student must be distilled again, and why: no champion, changed data, a changed recipe, images from the field that
are not like what the champion knows, or the champion's age."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from gkd_core.errors import SettingsError
from gkd_core.methods import method_of
from gkd_core.settings import Settings
from gkd_core.stages.fingerprint import FIELD, Fingerprint, differences, joins_field, without_field

DAY_SECONDS = 86_400.0


@dataclass(frozen=True)
class Trial:
    """A student that was registered.

    Attributes:
        fingerprint: digest of its fingerprint.
        refused: whether the gate turned it down, or could not compare it.
        at: when the gate judged it, or when it was registered.
    """

    version: str
    fingerprint: str
    seed: int
    refused: bool
    at: datetime


@dataclass(frozen=True)
class Champion:
    """The student that is in use."""

    version: str
    fingerprint: Fingerprint
    since: datetime


@dataclass(frozen=True)
class FieldLook:
    """How far images of the field are from what the champion knows: their median distance, by the part that is nearest to each.

    Attributes:
        median: 1 where they are as far as images that it knows.
        bound: beyond it they ask for a new student.
        images: how many were looked at.
    """

    median: float
    bound: float
    images: int

    @property
    def asks(self) -> bool:
        """Whether they ask for a new student."""
        return self.median > self.bound

    def __str__(self) -> str:
        bound = f"registry.field_images.bound: {self.bound:g}"
        return f"{self.images} images from the field, median distance {self.median:.2f} ({bound})"


@dataclass(frozen=True)
class Due:
    """What asks for a new student, a sentence each, or why nothing does.

    Attributes:
        further_seed: age alone asks: the same seeds would give the same students, bit for bit.
    """

    reasons: tuple[str, ...]
    why_not: str = ""
    further_seed: bool = False


def what_is_due(
    name: str,
    champion: Champion | None,
    trials: Sequence[Trial],
    now: Fingerprint,
    moment: datetime,
    max_age_days: float | None,
    field: FieldLook | None = None,
) -> Due:
    """Hold a registered model against what would be distilled now.

    A student of today's data and recipe that was refused is not distilled again for the same reason: nothing about it is new.
    The age counts from the champion's promotion, or from the latest trial after it.

    Args:
        now: with the images of the field where they join the proxy.
        field: how far they are from what the champion knows. Their folder changes by the day: only that asks, no change in it.
    """
    if champion is None:
        return Due((f"{name}: there is no champion",))
    compared = (champion.fingerprint, now) if field is None else (without_field(champion.fingerprint), without_field(now))
    changes = differences(*compared)
    if field is not None and field.asks:
        changes.append(f"{field}: not like what version {champion.version} knows; they join the proxy")
    refused = [trial for trial in trials if trial.refused and trial.fingerprint == now.digest]
    if changes and not refused:
        return Due(tuple(f"{name}: {change}" for change in changes))
    latest = max([champion.since, *(trial.at for trial in trials)])
    days = (moment - latest).total_seconds() / DAY_SECONDS
    if max_age_days is not None and days >= max_age_days:
        what = f"the champion, version {champion.version}, was promoted or last challenged {days:.1f} days ago"
        return Due((f"{name}: {what} (registry.max_age_days: {max_age_days:g})",), further_seed=True)
    if changes:
        newest = max(refused, key=lambda trial: trial.at)
        return Due((), f"{name}: version {newest.version}, of today's data and recipe, was refused on {newest.at:%Y-%m-%d}")
    seen = "" if field is None else f"; {field}"
    return Due((), f"{name}: version {champion.version} is of today's data and recipe, {days:.1f} days old{seen}")


def check_field(settings: Settings) -> None:
    """Raise `SettingsError` where images of `registry.field_images` could not join the proxy of stage 1a."""
    reason = None
    if settings.data.field is not None:
        reason = "data.field is set beside it, which a run that they join sets; leave that null"
    elif settings.data.streaming is not None:
        reason = "its images lie in no shard that could be streamed; set data.streaming to null"
    elif method_of(settings).distillation is None or settings.distill_proxy.updates == 0:
        reason = f"method {settings.method} has no stage 1a here that its images could join"
    if reason is not None:
        raise SettingsError(f"registry.field_images: {reason}, or registry.field_images")


def field_joins(settings: Settings, champions: Sequence[Champion], looks: Sequence[FieldLook]) -> bool:
    """Whether the images of the field join the proxy in a run that begins now: they ask for it, or joined a champion's."""
    known = any(joins_field(champion.fingerprint) for champion in champions)
    return settings.registry.field_images is not None and (known or any(look.asks for look in looks))


def field_override(settings: Settings, joins: bool) -> list[str]:
    """The change of settings, as key=value, by which they join."""
    field = settings.registry.field_images
    return [f"{FIELD}={json.dumps(field.folder)}"] if joins and field is not None else []


def with_field(settings: Settings) -> Settings:
    """The settings of a run that they join."""
    field = settings.registry.field_images
    data = settings.data.model_copy(update={"field": None if field is None else field.folder})
    return settings.model_copy(update={"data": data})


def seeds_to_run(wanted: Sequence[int], trials: Sequence[Trial], dues: Sequence[Due]) -> list[int]:
    """The seeds wanted; or, where age alone asks, as many that follow those which were tried with today's data and recipe."""
    asking = [due for due in dues if due.reasons]
    if not all(due.further_seed for due in asking):
        return list(wanted)
    first = max((trial.seed for trial in trials), default=-1) + 1
    return list(range(first, first + len(wanted)))
