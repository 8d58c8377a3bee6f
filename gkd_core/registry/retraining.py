"""Whether a student must be distilled again, and why: no champion, changed data, a changed recipe, or the champion's age."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from gkd_core.stages.fingerprint import Fingerprint, differences

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
class Due:
    """What asks for a new student, a sentence each, or why nothing does.

    Attributes:
        further_seed: age alone asks: the same seeds would give the same students, bit for bit.
    """

    reasons: tuple[str, ...]
    why_not: str = ""
    further_seed: bool = False


def what_is_due(
    name: str, champion: Champion | None, trials: Sequence[Trial], now: Fingerprint, moment: datetime, max_age_days: float | None
) -> Due:
    """Hold a registered model against what would be distilled now.

    A student of today's data and recipe that was refused is not distilled again for the same reason: nothing about it is new.
    The age counts from the champion's promotion, or from the latest trial after it.
    """
    if champion is None:
        return Due((f"{name}: there is no champion",))
    changes = differences(champion.fingerprint, now)
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
    return Due((), f"{name}: version {champion.version} is of today's data and recipe, {days:.1f} days old")


def seeds_to_run(wanted: Sequence[int], trials: Sequence[Trial], dues: Sequence[Due]) -> list[int]:
    """The seeds wanted; or, where age alone asks, as many that follow those which were tried with today's data and recipe."""
    asking = [due for due in dues if due.reasons]
    if not all(due.further_seed for due in asking):
        return list(wanted)
    first = max((trial.seed for trial in trials), default=-1) + 1
    return list(range(first, first + len(wanted)))
