"""What a run shows in Prefect: how far its long stages are, and at the end a page that sums it up.

It is for people only. Where the server does not take it, a line in the log says so, and the run goes on.
"""

import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from contextvars import copy_context
from logging import Logger, LoggerAdapter
from pathlib import Path
from typing import Any
from uuid import UUID

from prefect.artifacts import create_markdown_artifact, create_progress_artifact, update_progress_artifact

from gkd_core.messages import one_line
from gkd_core.stages.length import Length
from gkd_core.tracking.costs import COST
from gkd_core.tracking.flow_runs import Tracking
from gkd_core.training.metrics import Line, following

ROUNDING = 0.001  # of the times in a file of metrics, in seconds
UPDATE_SECONDS = 5.0
Log = Logger | LoggerAdapter[Any]


@contextmanager
def stage_progress(name: str, length: Length | None, folder: Path, log: Log) -> Iterator[None]:
    """Update a progress artifact for a stage while the block runs, from the step metrics in its run folder.

    Args:
        length: of the stage; None shows nothing.
    """
    if length is None:
        with nullcontext():
            yield
        return
    progress = StageProgress(name, length, log)
    context = copy_context()  # the thread that follows the file must know which task run it is for
    with following(folder, lambda lines: context.run(progress.show, lines)):
        yield
    progress.end()


class StageProgress:
    """One stage's progress artifact: made with the first step, then updated at most every few seconds."""

    def __init__(self, name: str, length: Length, log: Log) -> None:
        self._name = name
        self._length = length
        self._log = log
        self._began = time.time() - ROUNDING
        self._first: Line | None = None
        self._artifact: UUID | None = None
        self._spoke = 0.0

    def show(self, lines: Sequence[Line]) -> None:
        """Read new lines of step metrics, without those of an earlier attempt."""
        fresh = [line for line in lines if line["time"] >= self._began]
        if not fresh:
            return
        self._first = self._first or fresh[0]
        last = fresh[-1]
        if time.monotonic() - self._spoke >= UPDATE_SECONDS or last["step"] >= self._length.total:
            self._spoke = time.monotonic()
            self._write(100 * last["step"] / self._length.total, describe(self._length, self._first, last))

    def end(self) -> None:
        """Say that the stage is done."""
        text = f"done: {self._length.total} {self._length.unit} in {duration(time.time() - self._began)}"
        self._write(100.0, text)

    def _write(self, percent: float, text: str) -> None:
        percent, text = min(100.0, percent), f"{self._name}: {text}"
        artifact = self._artifact
        with told_only(self._log, f"the progress of {self._name}"):
            if artifact is None:
                self._artifact = _made(create_progress_artifact(percent, key_of(f"progress-{self._name}"), text))
            else:
                update_progress_artifact(artifact, percent, text)


def describe(length: Length, first: Line, last: Line) -> str:
    """Where a stage is: step, total, rate, time left, and the loss or domains where it has them."""
    parts = [f"{last['step']:.0f} of {length.total} {length.unit}"]
    seconds, steps = last["time"] - first["time"], last["step"] - first["step"]
    if seconds > 0 and steps > 0:
        rate = steps / seconds
        parts += [f"{rate:.3g} {length.unit}/s", f"{duration((length.total - last['step']) / rate)} left"]
    if "loss" in last:
        parts.append(f"loss {last['loss']:.4g}")
    if "domains" in last:
        parts.append(f"{last['domains']:.0f} domains done")
    return ", ".join(parts)


def duration(seconds: float) -> str:
    """Seconds as readable text: `48 s`, `12 min`, `3 h 20 min`."""
    if seconds < 120:
        return f"{max(0.0, seconds):.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"


def show_page(key: str, page: Callable[[], str], log: Log) -> None:
    """Put a page of Markdown on the run in Prefect; a failure to write it is logged, and no more."""
    with told_only(log, f"the page '{key}'"):
        text = page()
        create_markdown_artifact(text, key=key_of(key), description=text.partition("\n")[0].lstrip("# "))


def run_page(matrix: str, stages: Mapping[str, tuple[str, float]], report: Path, tracking: Tracking, run_id: str) -> str:
    """A run on one page: the matrix, what each stage did and for how long, what it cost, and where all of it lies.

    Args:
        matrix: the report's own page.
        stages: what each did, and its seconds, by name.
    """
    lines = [matrix.rstrip(), "", "## Stages", "", "| stage | | time |", "|---|---|---|"]
    lines += [f"| {name} | {outcome} | {duration(seconds)} |" for name, (outcome, seconds) in stages.items()]
    if costs := costs_of(tracking, run_id):
        lines += ["", "## Cost", "", "| | |", "|---|---|"]
        lines += [f"| {name.removeprefix(COST)} | {value:.4g} |" for name, value in sorted(costs.items())]
    return "\n".join([*lines, "", *places(report, tracking, run_id)]) + "\n"


def places(report: Path | None, tracking: Tracking, run_id: str) -> list[str]:
    """Lines that say where the report and the MLflow run are, with links where MLflow is a server."""
    lines = ["## Where", ""] + ([] if report is None else [f"- Report: `{report}`"])
    if not tracking.address.startswith(("http://", "https://")):
        return [*lines, f"- MLflow: run `{run_id}`; `mlflow ui --backend-store-uri {tracking.address}` shows it"]
    experiment = f"{tracking.address.rstrip('/')}/#/experiments/{tracking.experiment}"
    return [*lines, f"- MLflow: [this run]({experiment}/runs/{run_id}), [the experiment, to compare]({experiment})"]


def costs_of(tracking: Tracking, run_id: str) -> dict[str, float]:
    """What a run cost, as MLflow has it: its metrics `cost/…`."""
    return {name: value for name, value in tracking.client.get_run(run_id).data.metrics.items() if name.startswith(COST)}


@contextmanager
def told_only(log: Log, what: str) -> Iterator[None]:
    """Log a failure in the block, and no more."""
    try:
        yield
    except Exception as error:
        log.warning("%s could not be shown in Prefect: %s", what, one_line(error, 300))


def key_of(text: str) -> str:
    """A text as Prefect takes it for the key of an artifact: lowercase letters, digits and dashes."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def _made(artifact: Any) -> UUID:
    """The id of an artifact made where nothing is asynchronous, which Prefect's annotations cannot tell."""
    return UUID(str(artifact))
