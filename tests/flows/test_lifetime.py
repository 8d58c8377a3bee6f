"""A flow's process ends when the process that started it is gone, and does not where no worker started it.

Told to end, it ends its children at once, whatever its threads are waiting for.
"""

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
from flows.lifetime import end_promptly
def ended(*_):
    open(sys.argv[1] + ".ended", "w").write("told to end")
    os._exit(0)
signal.signal(signal.SIGTERM, ended)
end_promptly()
end_promptly()
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


# A "flow" whose thread waits for a child, as that of a task does for its stage; SIGTERM raises in the main thread, as Prefect has
# it, which then waits for the other.
BUSY = """
import signal, subprocess, sys, threading
from flows.lifetime import end_promptly
from gkd_core.system.child_process import child_process
class Told(BaseException): pass
def told(*_): raise Told
signal.signal(signal.SIGTERM, told)
end_promptly()
ends, done = [], threading.Event()
def work():
    try:
        with child_process(["sleep", "1000"]) as child:
            print("busy", flush=True)
            if child.wait():
                raise RuntimeError("the stage failed")
    except BaseException as end:
        ends.append(type(end).__name__)
    done.set()
threading.Thread(target=work).start()
try:
    done.wait()
except Told:
    done.wait()
print(ends, signal.getsignal(signal.SIGTERM) is told)
"""


def test_told_to_end_it_ends_its_children_at_once() -> None:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "PREFECT__FLOW_RUN_ID": "some-id"}
    flow = subprocess.Popen([sys.executable, "-c", BUSY], env=environment, stdout=subprocess.PIPE, text=True)
    assert flow.stdout is not None and flow.stdout.readline() == "busy\n"
    family = psutil.Process(flow.pid).children(recursive=True)
    flow.terminate()
    said, _ = flow.communicate(timeout=60)
    assert said == "['KeyboardInterrupt'] True\n"
    assert not any(process.is_running() for process in family)
