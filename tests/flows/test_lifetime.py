"""A flow's process ends when the process that started it is gone, and does not where no worker started it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

# A "worker" that starts a "flow"; the flow says its id and how it ended.
FLOW = """
import os, signal, sys, time
from flows.lifetime import end_with_worker
def ended(*_):
    open(sys.argv[1] + ".ended", "w").write("told to end")
    os._exit(0)
signal.signal(signal.SIGTERM, ended)
end_with_worker()
end_with_worker()
open(sys.argv[1], "w").write(f"{os.getpid()}\\n")
time.sleep(1000)
"""
WORKER = """
import subprocess, sys
subprocess.run([sys.executable, *sys.argv[1:]])
"""


@pytest.mark.parametrize("by_worker", [True, False])
def test_the_flow_ends_with_its_worker_alone(by_worker: bool, tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    environment.pop("PREFECT__FLOW_RUN_ID", None)
    if by_worker:
        environment["PREFECT__FLOW_RUN_ID"] = "some-id"
    said = tmp_path / "flow"
    worker = subprocess.Popen([sys.executable, "-c", WORKER, "-c", FLOW, str(said)], env=environment)
    deadline = time.monotonic() + 60
    while not (said.exists() and said.read_text().endswith("\n")):
        assert time.monotonic() < deadline and worker.poll() is None
        time.sleep(0.05)
    flow = psutil.Process(int(said.read_text()))
    worker.kill()
    worker.wait()
    if by_worker:
        flow.wait(timeout=20)
        assert said.with_suffix(".ended").read_text() == "told to end"
    else:
        time.sleep(2.5)  # two looks of a watch that must not be there
        assert flow.is_running()
        flow.kill()
