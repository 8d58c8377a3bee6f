"""The judge of the load test on made-up histories: it passes what is right, and notices each thing that is not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.load.figures import figures
from benchmarks.load.judge import Change, History, Trace, judge, most_at_once, running, slots_held, unfinished, unswept

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
Load = tuple[list[str], list[History], list[Trace]]


def at(seconds: float) -> datetime:
    return BEGIN + timedelta(seconds=seconds)


def history(run: str, queued: float, began: float, ended: float) -> History:
    changes = (
        Change("SCHEDULED", "Scheduled", at(queued)),
        Change("SCHEDULED", "AwaitingConcurrencySlot", at(queued)),
        Change("PENDING", "Pending", at(began - 1)),
        Change("RUNNING", "Running", at(began)),
        Change("COMPLETED", "Completed", at(ended)),
    )
    return History(run, 1, changes)


def trace(run: str, began: float, ended: float) -> Trace:
    return Trace(run, f"mlflow-{run}", None, "FINISHED", at(began), at(ended))


def worked_off(durations: list[float], limit: int) -> Load:
    """A load as it should be: each run takes the place that is free first, MLflow's run lies within the flow run."""
    free = [1.0] * limit
    queued, histories, traces = [], [], []
    for number, seconds in enumerate(durations):
        place = min(range(limit), key=free.__getitem__)
        began, ended = free[place], free[place] + seconds
        free[place] = ended
        queued.append(f"run-{number}")
        histories.append(history(queued[-1], 0, began, ended))
        traces.append(trace(queued[-1], began, ended))
    return queued, histories, traces


loads = st.builds(
    worked_off, st.lists(st.integers(1, 60).map(float), min_size=5, max_size=40), st.integers(1, 4)
)  # limit is at most 4
places = st.integers(0, 4)  # each load has five runs at least


@given(loads)
def test_a_load_as_it_should_be_passes(load: Load) -> None:
    assert judge(*load, limit=4) == []


@given(loads, places, st.booleans())
def test_a_lost_run_is_noticed(load: Load, place: int, known: bool) -> None:
    queued, histories, traces = load
    lost = queued[place]
    if known:  # it never got beyond the queue
        histories[place] = replace(histories[place], run_count=0, changes=histories[place].changes[:2])
    else:
        del histories[place]
    traces = [each for each in traces if each.flow_run != lost]
    assert any(line.startswith(f"lost: {lost} ") for line in judge(queued, histories, traces, limit=4))


@pytest.mark.parametrize("end", ["FAILED", "CRASHED", "CANCELLED", "RUNNING", "PENDING"])
def test_any_end_but_completed_is_noticed(end: str) -> None:
    queued, histories, traces = worked_off([5.0] * 6, 4)
    last = Change(end, end.title(), at(99))
    histories[2] = replace(histories[2], changes=(*histories[2].changes[:-1], last))
    assert f"lost: run-2 is {end.title()} since 00:01:39, expected Completed" in judge(queued, histories, traces, limit=4)


def run_by_states(load: Load, place: int) -> None:
    _, histories, _ = load
    changes = histories[place].changes
    again = (*changes, Change("RUNNING", "Running", at(5000)), Change("COMPLETED", "Completed", at(5001)))
    histories[place] = replace(histories[place], changes=again)


def run_by_count(load: Load, place: int) -> None:
    _, histories, _ = load
    histories[place] = replace(histories[place], run_count=2)


def run_by_mlflow(load: Load, place: int) -> None:
    queued, _, traces = load
    traces.append(trace(queued[place], 5000, 5001))


@pytest.mark.parametrize(
    ("twice", "witness"),
    [(run_by_states, "Prefect's states say"), (run_by_count, "Prefect's count says"), (run_by_mlflow, "MLflow says")],
)
@given(load=loads, place=places)
def test_a_run_that_ran_twice_is_noticed_by_each_witness(
    twice: Callable[[Load, int], None], witness: str, load: Load, place: int
) -> None:
    twice(load, place)
    assert judge(*load, limit=4) == [f"not run once: {load[0][place]} ran 2 times, {witness}"]


@given(loads, st.integers(5, 9), st.sampled_from(["Prefect", "MLflow"]))
def test_five_at_once_are_noticed_by_each_witness(load: Load, crowd: int, witness: str) -> None:
    queued, histories, traces = load
    for number in range(crowd):
        run = f"crowd-{number}"
        queued.append(run)
        # They overlap in a moment alone, or, by the other witness, come one after the other.
        together, apart = (9000.0 + number, 9000.0 + crowd), (8000.0 + number, 8001.0 + number)
        histories.append(history(run, 0, *(together if witness == "Prefect" else apart)))
        traces.append(trace(run, *(together if witness == "MLflow" else apart)))
    assert judge(queued, histories, traces, limit=4) == [
        f"too many: {crowd} at once at {at(9000 + crowd - 1):%H:%M:%S}, says {witness}; allowed: 4"
    ]


def test_what_mlflow_has_left_open_computed_anew_or_never_asked_for_is_noticed() -> None:
    queued, histories, traces = worked_off([5.0] * 6, 4)
    traces[0] = replace(traces[0], status="RUNNING", ended=None)
    traces.append(replace(traces[1], run="stage", stage="learn-task-potsdam-rgb"))
    traces.append(trace("stranger", 5000, 5001))
    assert judge(queued, histories, traces, limit=4) == [
        "not queued: MLflow has a run of the flow run stranger, which nobody asked for",
        "MLflow: mlflow-run-0 is RUNNING, expected FINISHED",
        "computed anew: learn-task-potsdam-rgb by run-1",
    ]


def test_a_run_that_begins_as_another_ends_is_not_beside_it() -> None:
    assert most_at_once([(at(0), at(5)), (at(5), at(9)), (at(4), None)]) == (2, at(4))
    assert most_at_once([]) == (0, None)


def test_a_run_that_was_never_ended_is_beside_all_that_follow() -> None:
    _, histories, _ = worked_off([5.0] * 2, 1)
    endless = replace(histories[0], changes=histories[0].changes[:-1])
    assert running(endless) == [(at(1), None)]


def test_workspaces_and_slots() -> None:
    assert unswept(["a"] * 5, keep=5) == [] and unswept(["a"] * 6, keep=5) != []
    assert slots_held(0) == [] and slots_held(1) != []
    assert unfinished([]) == [] and unfinished(["report", "report"]) == ["not ended: 2 task runs report, of flow runs that are"]


def test_the_figures_of_a_load_worked_out_by_hand() -> None:
    # Two places; runs of 9 s with a second before each: 1–10, 1–10, 11–20, 11–20.
    histories = [history(f"run-{number}", 0, began, began + 9) for number, began in enumerate((1, 1, 11, 11))]
    found = figures(histories, limit=2)
    assert (found.runs, found.seconds, found.per_minute) == (4, 20.0, 12.0)
    assert (found.latency_median, found.longest_wait) == (15.0, 11.0)
    assert (found.starting, found.working, found.most_at_once) == (1.0, 9.0, 2)
    assert found.slots_used == 1.0 and found.turned_away == 1.0
    assert found.latency_p95 == 20.0
