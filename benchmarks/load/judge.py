"""What must be true after the load: nothing lost, nothing run twice, never more at once than allowed, nothing left open.

Two witnesses that know nothing of each other are heard: Prefect, by the states that each flow run went through, and MLflow, by
the runs that the flows themselves began there. Pure functions of both.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

ENDED = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")


@dataclass(frozen=True)
class Change:
    """A state that a flow run came into: Prefect's type and name of it, and when."""

    kind: str
    name: str
    at: datetime


@dataclass(frozen=True)
class History:
    """A flow run as Prefect has it: how often it was started, and its states from the first to the last."""

    flow_run: str
    run_count: int
    changes: tuple[Change, ...]


@dataclass(frozen=True)
class Trace:
    """A run in MLflow.

    Attributes:
        stage: the recipe's stage that it is of; None for the run of the whole flow run.
        ended: None while it is open.
    """

    flow_run: str
    run: str
    stage: str | None
    status: str
    began: datetime
    ended: datetime | None


Span = tuple[datetime, datetime | None]  # from, to; to None: to this day


def judge(queued: Sequence[str], histories: Sequence[History], traces: Sequence[Trace], limit: int) -> list[str]:
    """All that is wrong, a line each; nothing where all is well.

    Args:
        queued: ids of the flow runs that were asked for.
        histories: of the flow runs that Prefect knows.
        traces: what MLflow has of the time since.
        limit: how many may run at once.
    """
    return [
        *_lost(queued, histories),
        *_repeated(queued, histories, traces),
        *_left_open(traces),
        *_computed(traces),
        *_crowded("Prefect", [span for history in histories for span in running(history)], limit),
        *_crowded("MLflow", [(trace.began, trace.ended) for trace in traces if trace.stage is None], limit),
    ]


def _lost(queued: Sequence[str], histories: Sequence[History]) -> list[str]:
    last = {history.flow_run: history.changes[-1] for history in histories if history.changes}
    found = []
    for run in queued:
        if run not in last:
            found.append(f"lost: {run} was queued, and Prefect does not know it")
        elif last[run].kind != "COMPLETED":
            found.append(f"lost: {run} is {last[run].name} since {last[run].at:%H:%M:%S}, expected Completed")
    return found


def _repeated(queued: Sequence[str], histories: Sequence[History], traces: Sequence[Trace]) -> list[str]:
    starts = {history.flow_run: sum(change.kind == "RUNNING" for change in history.changes) for history in histories}
    counts = {history.flow_run: history.run_count for history in histories}
    begun = Counter(trace.flow_run for trace in traces if trace.stage is None)
    witnesses = {"Prefect's states say": starts, "Prefect's count says": counts, "MLflow says": begun}
    found = [
        f"not run once: {run} ran {known.get(run, 0)} times, {witness}"
        for run in queued
        for witness, known in witnesses.items()
        if known.get(run, 0) != 1
    ]
    strangers = sorted(begun.keys() - set(queued))
    return found + [f"not queued: MLflow has a run of the flow run {run}, which nobody asked for" for run in strangers]


def _left_open(traces: Iterable[Trace]) -> list[str]:
    return [f"MLflow: {trace.run} is {trace.status}, expected FINISHED" for trace in traces if trace.status != "FINISHED"]


def _computed(traces: Iterable[Trace]) -> list[str]:
    return [f"computed anew: {trace.stage} by {trace.flow_run}" for trace in traces if trace.stage is not None]


def _crowded(witness: str, spans: Sequence[Span], limit: int) -> list[str]:
    most, when = most_at_once(spans)
    return [f"too many: {most} at once at {when:%H:%M:%S}, says {witness}; allowed: {limit}"] if when and most > limit else []


def running(history: History) -> list[Span]:
    """The times in which a flow run was Running.

    Both ends are the process's own, before the server gives the slot and after it would take it back: so what overlaps here had
    slots at the same time.
    """
    following = [*history.changes[1:], None]
    return [
        (change.at, after.at if after else None)
        for change, after in zip(history.changes, following, strict=True)
        if change.kind == "RUNNING"
    ]


def most_at_once(spans: Iterable[Span]) -> tuple[int, datetime | None]:
    """The most spans that overlap, and since when they first do. One that begins as another ends does not overlap it."""
    held = list(spans)
    steps = [(begin, 1) for begin, _ in held] + [(end, -1) for _, end in held if end is not None]
    most, when, now = 0, None, 0
    for at, step in sorted(steps):
        now += step
        if now > most:
            most, when = now, at
    return most, when


def unswept(workspaces: Sequence[str], keep: int) -> list[str]:
    """Whether more workspaces are left than the settings keep."""
    return [] if len(workspaces) <= keep else [f"not swept: {len(workspaces)} workspaces are left, expected at most {keep}"]


def unfinished(tasks: Sequence[str]) -> list[str]:
    """Whether tasks of flow runs that have ended are shown as if they had not."""
    return [f"not ended: {count} task runs {name}, of flow runs that are" for name, count in Counter(tasks).items()]


def slots_held(active: int) -> list[str]:
    """Whether slots were not given back."""
    return [] if active == 0 else [f"not given back: {active} slots of the deployment, with nothing left that runs"]
