"""Processes that share work: all are there before the first task, and one that ends is said."""

from __future__ import annotations

import multiprocessing

import pytest

from gkd_core.data.preparing.workers import sharing, start_processes
from gkd_core.errors import PlatformError


def test_every_process_runs_before_the_first_task() -> None:
    # Where one dies while another is being started, Python 3.11's executor waits forever for the one that it did not know of.
    before = set(multiprocessing.active_children())
    with start_processes(3):
        assert len(set(multiprocessing.active_children()) - before) == 3


def test_a_process_that_ends_is_said_in_one_line() -> None:
    with pytest.raises(PlatformError, match="a process that prepares data has ended"), sharing(2) as share_out:
        share_out(eval, ["1", "__import__('os')._exit(9)", "2"], lambda done: None)


def test_results_come_in_the_order_of_the_tasks() -> None:
    told: list[int] = []
    with sharing(2) as share_out:
        assert share_out(eval, ["1 + 1", "2 + 2", "3 + 3"], told.append) == [2, 4, 6]
    assert told == [1, 2, 3]
