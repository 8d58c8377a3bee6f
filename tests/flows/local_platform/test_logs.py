"""Logs of bounded size."""

from __future__ import annotations

import os
from pathlib import Path

from flows.local_platform.logs import KEPT, begin_log, bound_log, last_lines


def test_each_start_begins_a_new_log_and_the_last_few_are_kept(tmp_path: Path) -> None:
    log = tmp_path / "logs/service.log"
    for number in range(KEPT + 3):
        begin_log(log)
        log.write_text(f"start {number}\n")
    kept = {path.name: path.read_text() for path in log.parent.iterdir()}
    newest = KEPT + 2
    assert kept == {"service.log": f"start {newest}\n"} | {
        f"service.log.{back}": f"start {newest - back}\n" for back in range(1, KEPT + 1)
    }


def test_a_log_that_is_written_can_be_bounded(tmp_path: Path) -> None:
    log = tmp_path / "service.log"
    writer = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(writer, b"x" * 1000)
    bound_log(log, largest=1000)
    assert log.stat().st_size == 1000
    os.write(writer, b"y")
    bound_log(log, largest=1000)
    os.write(writer, b"after\n")
    os.close(writer)
    assert log.read_text() == "after\n"
    assert log.with_name("service.log.1").read_text() == "x" * 1000 + "y"


def test_last_lines_of_a_log_that_is_not_there_are_none(tmp_path: Path) -> None:
    assert last_lines(tmp_path / "none.log", 2) == []
    (tmp_path / "some.log").write_text("a\n\nb\n\n")
    assert last_lines(tmp_path / "some.log", 1) == ["b"]
