"""Step metrics: written by one process, followed by another."""

from __future__ import annotations

import math
import threading
from pathlib import Path

import pytest

from gkd_core.training import metrics
from gkd_core.training.metrics import FILE, Following, Line, MetricsFollower, file_sink, following


def test_lines_are_followed_as_they_come(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    follower = MetricsFollower(folder)
    assert follower.read() == []
    sink = file_sink(folder)
    sink(1, {"loss": 0.5})
    sink(2, {"loss": 0.25})
    lines = follower.read()
    assert [(line["step"], line["loss"]) for line in lines] == [(1, 0.5), (2, 0.25)]
    assert all("time" in line for line in lines)
    assert follower.read() == []
    sink(3, {"loss": 0.125})
    assert [line["step"] for line in follower.read()] == [3]


def test_a_half_written_line_waits_for_its_end(tmp_path: Path) -> None:
    follower = MetricsFollower(tmp_path)
    file_sink(tmp_path)(1, {})
    with (tmp_path / FILE).open("a") as stream:
        stream.write('{"step": 2, "time": 7, "lo')
        stream.flush()
        assert [line["step"] for line in follower.read()] == [1]
        assert follower.read() == []
        stream.write('ss": 0.5}\n')
    assert follower.read() == [{"step": 2, "time": 7, "loss": 0.5}]


def test_a_line_that_a_killed_process_never_ended_costs_no_other(tmp_path: Path) -> None:
    file_sink(tmp_path)(1, {})
    with (tmp_path / FILE).open("a") as stream:
        stream.write('{"step": 2, "lo')
    file_sink(tmp_path)(2, {})
    file_sink(tmp_path)(3, {})
    assert [line["step"] for line in MetricsFollower(tmp_path).read()] == [1, 2, 3]


def test_following_hands_over_the_last_lines_too(tmp_path: Path) -> None:
    seen: list[float] = []
    sink = file_sink(tmp_path)
    sink(1, {})
    with following(tmp_path, lambda lines: seen.extend(line["step"] for line in lines)):
        sink(2, {})
    assert seen == [1, 2]


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """No waiting between turns."""
    monkeypatch.setattr(metrics, "POLL_SECONDS", 0.001)
    monkeypatch.setattr(metrics, "LONGEST_PAUSE", 0.001)


class Receiver:
    """Refuses the first so many calls, then takes what it is given."""

    def __init__(self, refusals: int) -> None:
        self.refusals = refusals
        self.seen: list[float] = []
        self.calls = 0
        self.called = threading.Event()

    def __call__(self, lines: list[Line]) -> None:
        self.calls += 1
        self.called.set()
        if self.calls <= self.refusals:
            raise ConnectionError("down for a second")
        self.seen += [line["step"] for line in lines]


@pytest.mark.usefixtures("at_once")
def test_an_error_of_the_receiver_does_not_end_the_following(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    receiver, sink = Receiver(refusals=1), file_sink(tmp_path)
    with following(tmp_path, receiver) as handing:
        sink(1, {})
        assert receiver.called.wait(60)
        sink(2, {})
    assert receiver.seen == [1, 2]  # the refused one again, none twice
    assert handing.lost == 0
    assert [record.getMessage() for record in caplog.records] == [
        f"{tmp_path.name}: metrics could not be handed on (ConnectionError: down for a second); they will be, again"
    ]


@pytest.mark.usefixtures("at_once")
def test_the_last_lines_are_handed_on_again_and_again(tmp_path: Path) -> None:
    receiver = Receiver(refusals=metrics.LAST_TRIES - 1)
    file_sink(tmp_path)(1, {})
    handing = Following(tmp_path, receiver)
    handing.finish(metrics.LAST_TRIES)
    assert (receiver.seen, handing.lost) == ([1], 0)


@pytest.mark.usefixtures("at_once")
def test_lines_that_were_never_handed_on_are_an_error_in_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    receiver = Receiver(refusals=10**9)
    with following(tmp_path, receiver) as handing:
        for step in (1, 2, 3):
            file_sink(tmp_path)(step, {})
    assert handing.lost == 3
    assert receiver.calls >= metrics.LAST_TRIES
    last = caplog.records[-1]
    assert last.levelname == "ERROR"
    assert last.getMessage() == f"{tmp_path.name}: 3 lines of metrics were never handed on: ConnectionError: down for a second"


@pytest.mark.usefixtures("at_once")
def test_a_block_that_fails_is_not_kept_waiting(tmp_path: Path) -> None:
    handing = Following(tmp_path, Receiver(refusals=10**9))
    file_sink(tmp_path)(1, {})
    handing.finish(tries=1)
    assert (handing.lost, handing._on_lines.calls) == (1, 1)  # type: ignore[attr-defined]
    receiver = Receiver(refusals=0)
    with pytest.raises(KeyboardInterrupt), following(tmp_path, receiver):
        raise KeyboardInterrupt
    assert receiver.seen == [1]


def test_pauses_grow_up_to_a_bound(tmp_path: Path) -> None:
    file_sink(tmp_path)(1, {})
    handing, pauses = Following(tmp_path, Receiver(refusals=10**9)), []
    for _ in range(7):
        pauses.append(handing.pause)
        assert not handing.turn()
    assert pauses == [0.5, 1.0, 2.0, 4.0, 8.0, 10.0, 10.0]


MALFORMED = [
    b"{", b"\xff\xfe\x00", b"null", b"[1, 2]", b'"text"', b"[" * 100_000, b'{"step": 5}', b'{"time": 5}',
    b'{"step": "5", "time": 1}', b'{"step": NaN, "time": 1}', b'{"step": 5, "time": Infinity}', b'{"step": true, "time": 1}',
    b'{"step": 5, "time": 1, "loss": "low"}', b'{"step": 5, "time": 1, "loss": null}', b'{"step": 5, "time": 1e999}',
    b'{"step": 1' + b"0" * 400 + b', "time": 1}',
]  # fmt: skip


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize("text", MALFORMED)
def test_a_malformed_line_is_named_once_and_left_out(tmp_path: Path, text: bytes, caplog: pytest.LogCaptureFixture) -> None:
    sink, receiver = file_sink(tmp_path), Receiver(refusals=2)  # it is read three times then
    sink(1, {})
    with (tmp_path / FILE).open("ab") as stream:
        stream.write(text + b"\n")
    with following(tmp_path, receiver):
        sink(2, {})
    assert receiver.seen == [1, 2]
    named = [record.getMessage() for record in caplog.records if "left out a malformed line" in record.getMessage()]
    assert len(named) == 1 and FILE in named[0] and len(named[0]) < 400


def test_a_figure_that_is_not_finite_is_one(tmp_path: Path) -> None:
    file_sink(tmp_path)(1, {"loss": float("nan")})
    assert [math.isnan(line["loss"]) for line in MetricsFollower(tmp_path).read()] == [True]


def test_another_file_in_its_place_is_read_from_the_beginning(tmp_path: Path) -> None:
    follower, sink = MetricsFollower(tmp_path), file_sink(tmp_path)
    for step in (1, 2, 3):
        sink(step, {})
    assert len(follower.read()) == 3
    (tmp_path / FILE).rename(tmp_path / "aside")
    sink(4, {})
    assert [line["step"] for line in follower.read()] == [4]


@pytest.mark.usefixtures("at_once")
def test_a_file_that_cannot_be_read_for_a_while_is_read_later(tmp_path: Path) -> None:
    (tmp_path / FILE).mkdir()
    handing = Following(tmp_path, receiver := Receiver(refusals=0))
    assert not handing.turn()
    file_sink(tmp_path)(1, {})  # sets the folder aside
    assert handing.turn()
    assert receiver.seen == [1]
