"""How fast the queue was worked off, from the states of its flow runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np

from .judge import History, most_at_once, running

WAITS = "AwaitingConcurrencySlot"


@dataclass(frozen=True)
class Figures:
    """Times are in seconds.

    Attributes:
        seconds: from the first that was queued to the last that ended.
        latency_median, latency_p95: of queued to completed.
        longest_wait: of queued to running.
        starting: median of a slot taken to running: the process begins, and loads the flow.
        working: median of running to completed.
        slots_used: share of the places of the deployment that had a run in them, starting or working, on average.
        turned_away: times that a run asked for a slot and there was none, for each run.
    """

    runs: int
    seconds: float
    per_minute: float
    latency_median: float
    latency_p95: float
    longest_wait: float
    starting: float
    working: float
    most_at_once: int
    slots_used: float
    turned_away: float


def figures(histories: Sequence[History], limit: int) -> Figures:
    """The figures of flow runs that all were Completed at their first start.

    Raises:
        StopIteration: one was not; judge first.
    """
    queued = [history.changes[0].at for history in histories]
    pending = [_last_before_running(history) for history in histories]
    began = [_first(history, "RUNNING") for history in histories]
    ended = [_first(history, "COMPLETED") for history in histories]
    latency = _between(queued, ended)
    seconds = (max(ended) - min(queued)).total_seconds()
    return Figures(
        runs=len(histories),
        seconds=seconds,
        per_minute=60 * len(histories) / seconds,
        latency_median=float(np.median(latency)),
        latency_p95=float(np.percentile(latency, 95)),
        longest_wait=max(_between(queued, began)),
        starting=float(np.median(_between(pending, began))),
        working=float(np.median(_between(began, ended))),
        most_at_once=most_at_once(span for history in histories for span in running(history))[0],
        slots_used=sum(_between(pending, ended)) / (limit * seconds),
        turned_away=sum(change.name == WAITS for history in histories for change in history.changes) / len(histories),
    )


def _first(history: History, kind: str) -> datetime:
    return next(change.at for change in history.changes if change.kind == kind)


def _last_before_running(history: History) -> datetime:
    """When the slot was taken: a run that gets one is Pending, and says so again while its process begins."""
    waits = [change.at for change in history.changes if change.kind == "SCHEDULED"]
    return next(change.at for change in history.changes if change.kind == "PENDING" and change.at >= waits[-1])


def _between(begins: Sequence[datetime], ends: Sequence[datetime]) -> list[float]:
    return [(end - begin).total_seconds() for begin, end in zip(begins, ends, strict=True)]
