"""Which errors a task is tried again for."""

from __future__ import annotations

import pytest

from flows.tasks import RETRY_SECONDS, may_pass
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
