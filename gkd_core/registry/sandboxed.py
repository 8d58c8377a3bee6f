"""Untrusted code of a logged model, run in a process of its own that is confined to one folder."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import gkd_core
from gkd_core.errors import WeightsError
from gkd_core.messages import last_words, one_line
from gkd_core.system.confined import confine

logger = logging.getLogger(__name__)

KEPT = ("PATH", "LANG", "LC_ALL", "PYTHONPATH", "LD_LIBRARY_PATH")  # of our environment
SECONDS = 600  # of CPU, and of time
LARGEST_FILE = 2**31  # bytes of what it leaves


def run_apart(module: str, argument: Path, threads: int, scratch: Path, label: str) -> None:
    """Run one of our modules, which calls `do_confined`, in `scratch`, with an environment of a few names.

    Args:
        argument: the file or folder of the model that it is to look at.
        threads: that it computes with.
        label: what the model is called in messages.

    Raises:
        WeightsError: it fails, or takes too long.
    """
    environment = {name: os.environ[name] for name in KEPT if name in os.environ}
    environment |= {
        "HOME": str(scratch), "TMPDIR": str(scratch), "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": str(threads),
        "MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
    }  # fmt: skip
    # -P: the folder that it runs in holds files of the model, and none of them may be importable.
    command = [sys.executable, "-P", "-m", module, str(argument)]
    try:
        done = subprocess.run(
            command, cwd=scratch, env=environment, capture_output=True, text=True, timeout=SECONDS, stdin=subprocess.DEVNULL,
            check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise WeightsError(f"{label}: its program did not end within {SECONDS} s; log the model again") from None
    if done.returncode:
        what = f"signal {signal.Signals(-done.returncode).name}" if done.returncode < 0 else last_words(done.stderr, 300)
        raise WeightsError(f"{label}: its program cannot be loaded or run ({what}); log the model again")
    lacking = done.stdout.partition("\n")[0]  # what foreign code prints comes after it
    if lacking:
        logger.warning("%s: its program was run, but this system cannot withhold from it: %s", label, one_line(lacking))


def do_confined(work: Callable[[], None], readable: Iterable[Path]) -> int:
    """The child's side: do `work` with nothing in reach but `readable`, our package and the current folder; gives the status."""
    lacking = confine(Path.cwd(), [*readable, Path(gkd_core.__file__).parent], SECONDS, LARGEST_FILE)
    print(", ".join(lacking))
    try:
        work()
    except Exception as error:  # whatever foreign code does: the parent gets it in a line
        print(f"{type(error).__name__}: {one_line(error)}", file=sys.stderr)
        return 1
    return 0
