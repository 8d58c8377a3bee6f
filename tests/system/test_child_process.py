"""Child processes end with us, however we end, and take with them all that they started."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from gkd_core.system.child_process import child_process

# Starts a process in a group of its own, as Ray does, says its id, and waits.
FAMILY = """
import os, subprocess, sys, time
child = subprocess.Popen(["sleep", "1000"], process_group=0)
open(sys.argv[1], "w").write(f"{os.getpid()} {child.pid}\\n")
time.sleep(1000)
"""


def _ids(path: Path) -> list[int]:
    deadline = time.monotonic() + 20
    while not (path.exists() and path.read_text().endswith("\n")):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return [int(word) for word in path.read_text().split()]


def _gone(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def test_end_of_the_block_ends_the_family(tmp_path: Path) -> None:
    with child_process([sys.executable, "-c", FAMILY, str(tmp_path / "ids")]):
        ids = _ids(tmp_path / "ids")
        assert not any(map(_gone, ids))
    assert all(map(_gone, ids))


def test_our_sudden_death_ends_the_family(tmp_path: Path) -> None:
    program = f"""
import sys, time
from gkd_core.system.child_process import child_process
with child_process([sys.executable, "-c", {FAMILY!r}, {str(tmp_path / "ids")!r}]):
    time.sleep(1000)
"""
    parent = subprocess.Popen([sys.executable, "-c", program])
    ids = _ids(tmp_path / "ids")
    parent.kill()
    parent.wait()
    deadline = time.monotonic() + 10
    while not all(map(_gone, ids)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert all(map(_gone, ids))


@pytest.mark.parametrize(("command", "status"), [("exit 3", 3), ("kill -9 $$", 128 + 9)])
def test_status_is_the_commands(command: str, status: int) -> None:
    with child_process(["sh", "-c", command]) as child:
        assert child.wait(timeout=20) == status


def test_output_goes_to_the_log(tmp_path: Path) -> None:
    log = tmp_path / "logs" / "child.log"
    with child_process(["sh", "-c", "echo out; echo err >&2"], log=log) as child:
        child.wait(timeout=20)
    assert log.read_text() == "out\nerr\n"
