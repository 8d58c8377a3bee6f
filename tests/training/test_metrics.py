"""Step metrics: written by one process, followed by another."""

from __future__ import annotations

from pathlib import Path

from gkd_core.training.metrics import FILE, MetricsFollower, file_sink, following


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
