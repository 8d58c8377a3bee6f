"""`gkd data prepare` killed with SIGKILL at random points, and run again."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

Digests = Callable[[Path], dict[str, str]]

# Small parts and shards, so that there are many points to be killed at.
COMMAND = """
import sys
from pathlib import Path
from gkd_core.data.preparing import building
building.PART_FILES = 1
from gkd_core.data.preparing.building import prepare_domains
from gkd_core.data.catalog.load import load_catalog
from contextlib import nullcontext
if __name__ == "__main__":
    print("begins", flush=True)
    catalog, root, output, jobs = sys.argv[1:]
    prepare_domains(
        [load_catalog([catalog]).domain("yard/both")], Path(root), Path(output), shrunk=[], shard_bytes=2_000, jobs=int(jobs),
        bar=lambda title, total: nullcontext(lambda done: None), say=print,
    )
"""


def start(script: Path, tmp_path: Path, output: str, jobs: int) -> subprocess.Popen[str]:
    arguments = [str(tmp_path / "yard.yaml"), str(tmp_path / "data"), str(tmp_path / output), str(jobs)]
    process = subprocess.Popen([sys.executable, str(script), *arguments], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "begins\n"
    return process


@pytest.mark.usefixtures("yard", "catalog")
@pytest.mark.parametrize(("jobs", "times"), [(1, 5), (2, 2)])
def test_what_was_killed_and_run_again_has_the_same_bytes(tmp_path: Path, digests: Digests, jobs: int, times: int) -> None:
    script = tmp_path / "prepare.py"
    script.write_text(COMMAND)
    began = time.monotonic()
    assert start(script, tmp_path, "whole", jobs).wait(timeout=60) == 0
    whole, duration = digests(tmp_path / "whole"), time.monotonic() - began
    draws, kills, unfinished = random.Random(jobs), 0, 0
    for _ in range(times):
        process = start(script, tmp_path, "out", jobs)
        time.sleep(draws.uniform(0, duration / 3))
        process.send_signal(signal.SIGKILL)
        kills += process.wait(timeout=60) == -signal.SIGKILL
        visible = {name: digest for name, digest in digests(tmp_path / "out").items() if "/." not in name}
        assert visible.items() <= whole.items(), "what is seen is finished"
        unfinished += visible != whole
    assert kills and unfinished
    assert start(script, tmp_path, "out", jobs).wait(timeout=60) == 0
    assert digests(tmp_path / "out") == whole


@pytest.mark.usefixtures("yard", "catalog")
def test_no_worker_outlives_its_parent(tmp_path: Path) -> None:
    script = tmp_path / "prepare.py"
    script.write_text(COMMAND)
    process = start(script, tmp_path, "out", 2)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    workers: list[str] = []
    while len(workers) < 2 and process.poll() is None:
        workers = [pid for pid in children.read_text().split() if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    process.send_signal(signal.SIGKILL)
    process.wait(timeout=30)
    deadline = time.monotonic() + 30
    while any(os.path.exists(f"/proc/{pid}") for pid in workers) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(os.path.exists(f"/proc/{pid}") for pid in workers)
