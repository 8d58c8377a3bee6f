"""Work in processes: every result once, also where a process dies."""

from __future__ import annotations

import os
import subprocess
import sys

from gkd_core.data.verify.workers import in_processes

DIE = "__import__('os')._exit(9)"


def lost(job: str) -> str:
    return f"lost {job}"


def test_one_process_is_this_one() -> None:
    assert list(in_processes(eval, ["1 + 1", "__import__('os').getpid()"], 1, lost)) == [(0, 2), (1, os.getpid())]


def test_a_job_that_kills_its_process_is_lost_alone() -> None:
    # `eval` is a function that a spawned process can find by name, and whose jobs say what it does.
    jobs = [str(index) for index in range(20)]
    jobs[13] = DIE
    results = dict(in_processes(eval, jobs, 2, lost))
    assert results == {index: index for index in range(20)} | {13: f"lost {DIE}"}


def test_what_a_process_imports_to_check_files_is_light() -> None:
    code = "import sys, gkd_core.data.verify.items; print({'torch', 'matplotlib', 'rich'} & set(sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert result.stdout == "set()\n"
