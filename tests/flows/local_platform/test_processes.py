"""Processes by their mark."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import time

import psutil

from flows.local_platform.processes import VARIABLE, mark_of, marked, stop_marked
from gkd_core.system.process_marks import is_running

# A child in a session of its own that ignores SIGTERM, and the parent that started it.
PAIR = """
import signal, subprocess, sys, time
child = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('on', flush=True); time.sleep(600)"
subprocess.Popen([sys.executable, "-c", child], start_new_session=True)
time.sleep(600)
"""


def test_a_process_that_left_the_session_and_ignores_sigterm_is_stopped_too() -> None:
    mark = secrets.token_hex(8)
    environment = {**os.environ, VARIABLE: f"{mark}:worker"}
    command = [sys.executable, "-c", PAIR]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, start_new_session=True) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == b"on\n"
        assert len(marked(mark)) == 2
        assert marked(f"{mark}:mlflow") == []
        assert stop_marked(f"{mark}:worker", grace=0.5) == 2
        assert marked(mark) == []


def test_another_process_of_the_same_number_is_not_taken_for_it() -> None:
    mine = mark_of(os.getpid())
    assert is_running(mine)
    assert not is_running(mine.model_copy(update={"began": mine.began - 1}))


def test_one_that_ended_does_not_run_even_before_it_is_waited_for() -> None:
    with subprocess.Popen([sys.executable, "-c", "pass"]) as process:
        mark = mark_of(process.pid)
        deadline = time.monotonic() + 20
        while psutil.Process(process.pid).status() != psutil.STATUS_ZOMBIE:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert not is_running(mark)
    assert not is_running(mark)
