"""Which errors a task is tried again for."""

from __future__ import annotations

import logging
import re
from types import SimpleNamespace
from typing import Any, cast

import pytest

from flows.tasks import RETRY_SECONDS, _is_retried, may_pass
from gkd_core.errors import (
    EXIT_TRANSIENT,
    EXIT_USER_ERROR,
    DataError,
    GkdError,
    PlatformError,
    SettingsError,
    TrainingError,
    TransientError,
    WeightsError,
)
from gkd_core.versioning.recipe import StageFailed


@pytest.mark.parametrize(
    ("error", "again"),
    [
        (StageFailed("distill-proxy", -9), True),  # out of memory, as Python gives it
        (StageFailed("distill-proxy", 137), True),  # and as a shell does
        (StageFailed("distill-proxy", 130), True),  # told to end, by a machine that is taken away
        (StageFailed("distill-proxy", EXIT_TRANSIENT), True),
        (StageFailed("distill-proxy", EXIT_USER_ERROR), False),  # bad settings, bad data, NaN
        (StageFailed("distill-proxy", 1), False),  # a bug
        (StageFailed("distill-proxy", 127), False),  # no such command
        (StageFailed("distill-proxy", 128), False),
        (TransientError("the store does not answer"), True),
        (PlatformError("the store refuses"), False),
        (SettingsError("seeed: unknown key"), False),
        (DataError("an image is missing"), False),
        (WeightsError("fits only in part"), False),
        (TrainingError("the loss is nan"), False),
        (GkdError("something"), False),
        (ValueError("a bug"), False),
        (KeyboardInterrupt(), False),
    ],
)
def test_only_what_may_pass_by_itself_is_tried_again(error: BaseException, again: bool) -> None:
    assert may_pass(error) is again


def test_the_pauses_grow() -> None:
    assert sorted(set(RETRY_SECONDS)) == RETRY_SECONDS and RETRY_SECONDS[0] > 0


class Failed:
    """As Prefect hands what a task raised to the condition."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def result(self, raise_on_failure: bool) -> Exception:
        return self.error


def is_retried(error: Exception, made: int) -> bool:
    task, run = SimpleNamespace(name="distill-proxy"), SimpleNamespace(run_count=made)
    return _is_retried(cast("Any", task), cast("Any", run), cast("Any", Failed(error)))


@pytest.mark.parametrize(("made", "pause"), [(1, 10), (2, 60), (3, 300)])
def test_the_terminal_says_what_failed_which_try_it_was_and_when_the_next_comes(
    made: int, pause: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    waited: list[float] = []
    monkeypatch.setattr("flows.tasks.wait_unless_ending", lambda seconds: waited.append(seconds) or True)
    monkeypatch.setattr("flows.tasks.log", logging.getLogger("a log that is heard"))
    assert is_retried(TransientError("MLflow does not answer"), made)
    assert waited == [pause]
    (line,) = caplog.messages
    start = f"distill-proxy: try {made} of 4 failed: MLflow does not answer; the next comes in {pause} s, at "
    assert line.startswith(start) and re.fullmatch(r"\d\d:\d\d:\d\d", line.removeprefix(start))


def test_told_to_end_in_the_pause_there_is_no_further_try(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flows.tasks.wait_unless_ending", lambda _seconds: False)
    assert not is_retried(TransientError("the store does not answer"), 1)


def test_what_would_be_the_same_again_waits_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flows.tasks.wait_unless_ending", lambda _seconds: pytest.fail("it waited"))
    assert not is_retried(DataError("an image is missing"), 1)
