"""What a job says of itself, read back from its log."""

from __future__ import annotations

import pytest

from gkd_core.cluster.job_log import parse_error, parse_metrics, say_error, wire_sink
from gkd_core.errors import DataError, GkdError, PlatformError, TrainingError, TransientError

WORKER = "\x1b[36m(RayTrainWorker pid=11002, ip=127.0.0.2)\x1b[0m "


@pytest.mark.parametrize("prefix", ["", WORKER])
def test_metrics_come_back_whoever_says_them(capsys: pytest.CaptureFixture[str], prefix: str) -> None:
    wire_sink()(7, {"loss": 0.1 + 0.2, "lr": 1e-30})
    (line,) = capsys.readouterr().out.splitlines()
    found = parse_metrics(prefix + line)
    assert found is not None and found.pop("written") > 0
    assert found == {"step": 7, "loss": 0.1 + 0.2, "lr": 1e-30}
    assert parse_error(prefix + line) is None


@pytest.mark.parametrize("error", [DataError("a: b"), TrainingError("the loss is nan"), TransientError('of "two"\nlines')])
def test_an_error_comes_back_as_what_it_was(capsys: pytest.CaptureFixture[str], error: GkdError) -> None:
    say_error(error)
    (line,) = capsys.readouterr().out.splitlines()
    found = parse_error(WORKER + line)
    assert type(found) is type(error) and str(found) == str(error)
    assert parse_metrics(line) is None


def test_an_error_of_a_class_that_we_do_not_know_is_one_all_the_same() -> None:
    found = parse_error('gkd-error {"kind": "Exception", "message": "of another version"}')
    assert type(found) is PlatformError and str(found) == "of another version"


@pytest.mark.parametrize(
    "line", ["", "epoch 3", "gkd-metrics", "gkd-metrics {", 'gkd-metrics {"loss": 1}', "gkd-metrics [1]", "gkd-error {x}"]
)
def test_other_lines_say_nothing(line: str) -> None:
    assert parse_metrics(line) is None and parse_error(line) is None
