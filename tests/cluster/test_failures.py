"""What is made of the failures of a group of Ray's workers."""

from __future__ import annotations

import pytest

pytest.importorskip("ray")

import ray
from ray.exceptions import RayActorError
from ray.train.v2.api.exceptions import ControllerError, TrainingFailedError, WorkerGroupError

from gkd_core.cluster.connect import connected
from gkd_core.cluster.train import _gave_up, _raise_own
from gkd_core.errors import GkdError, PlatformError, SettingsError, TrainingError, TransientError


@pytest.mark.parametrize("own", [TrainingError("the loss is nan at update 3"), SettingsError("batch_size: 5")])
def test_a_workers_own_error_is_raised_whatever_came_of_the_others(own: GkdError) -> None:
    for failures in ({0: own}, {0: RayActorError(), 1: own}, {0: RuntimeError("Connection closed by peer"), 1: own}):
        with pytest.raises(type(own), match=str(own)):
            _raise_own(WorkerGroupError("x", failures))


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (WorkerGroupError("x", {0: RayActorError()}), TransientError),
        (WorkerGroupError("x", {0: RuntimeError("Connection closed by peer"), 1: RayActorError()}), TransientError),
        (ControllerError(RuntimeError("no room")), TransientError),
        (WorkerGroupError("x", {0: OSError("AWS Error NETWORK_CONNECTION during PutObject")}), TransientError),
        (WorkerGroupError("x", {0: OSError(28, "No space left on device")}), PlatformError),
        (WorkerGroupError("x", {0: ValueError("a bug"), 1: ValueError("a bug")}), PlatformError),
    ],
)
def test_lost_workers_may_come_back_and_a_bug_stays(error: TrainingFailedError, kind: type[PlatformError]) -> None:
    _raise_own(error)
    assert type(_gave_up(error, "distill-proxy", 3)) is kind


def test_a_ray_that_is_not_up_in_time_may_be_the_next_time(monkeypatch: pytest.MonkeyPatch) -> None:
    def init(**options: object) -> None:
        raise Exception("The current node timed out during startup.")  # what Ray raises on a machine that is too busy

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(ray, "init", init)
    with pytest.raises(TransientError, match="cannot be reached or started .The current node timed out"), connected(2):
        pass
