"""Told to end, a command line ends with all that it started, whatever state it is in, and says that the same command goes on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

# A "flow" in one of the states that it may be in, beside a "server" that ends last; the main thread waits for the task's thread,
# as Prefect's does.
STATE = """
import signal, sys, threading, time
from flows import lifetime, tasks
from gkd_core.cli.run import INTERRUPTED
from gkd_core.system.child_process import child_process, wait_unless_ending
lifetime.LEAVE_SECONDS = 3.0
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, signal.default_int_handler)

def stage():
    with child_process(["sleep", "1000"]) as child:
        child.wait()

def stubborn():
    with child_process(["sh", "-c", "trap '' TERM; sleep 1000"]) as child:
        child.wait()

def pause():
    wait_unless_ending(1000)

def gone():
    time.sleep(1000)  # a server is asked again and again

with child_process(["sleep", "1000"], last=True):
    lifetime.end_in_time("gkd: " + INTERRUPTED, lambda: open(sys.argv[2], "w").close())
    done = threading.Event()
    def work():
        try:
            globals()[sys.argv[1]]()
        except KeyboardInterrupt:
            pass
        done.set()
    threading.Thread(target=work).start()
    time.sleep(1)
    try:
        print("busy", flush=True)  # here, as the signal may come before the next line
        done.wait()
    except KeyboardInterrupt:
        done.wait()
        print("left by itself", flush=True)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize(("state", "by_itself"), [("stage", True), ("pause", True), ("stubborn", True), ("gone", False)])
def test_it_ends_from_any_state(number: signal.Signals, state: str, by_itself: bool, tmp_path: Path) -> None:
    own = {"PYTHONPATH": str(Path(__file__).parents[2]), "PREFECT_HOME": str(tmp_path / "prefect")}
    environment = {**os.environ, **own}
    command = [sys.executable, "-c", STATE, state, str(tmp_path / "cleaned")]
    flow = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert flow.stdout is not None and flow.stdout.readline() == "busy\n"
    family = psutil.Process(flow.pid).children(recursive=True)
    assert family
    started = time.monotonic()
    flow.send_signal(number)
    said, errors = flow.communicate(timeout=60)
    assert time.monotonic() - started < 20
    assert (said == "left by itself\n") is by_itself
    if not by_itself:
        assert (flow.returncode, errors) == (130, "gkd: interrupted; the same command goes on from the last checkpoint\n")
        assert (tmp_path / "cleaned").exists()
    _, alive = psutil.wait_procs(family, timeout=10)
    assert not [process for process in alive if process.status() != psutil.STATUS_ZOMBIE]
