"""A flow's process ends with the worker that started it.

Without its worker a flow could go on, but nobody could cancel it, its concurrency slot would be given to another, and what it
prints would go into a broken pipe. So it ends itself, as by a signal: Prefect hears that it crashed, MLflow that it failed,
and its children go with it. The worker that takes the dead one's place can then run it again, from its last checkpoints.
"""

import os
import signal
import threading
import time

from prefect.logging import get_logger

STARTED_BY_WORKER = "PREFECT__FLOW_RUN_ID"  # in the environment of a process that a worker starts
POLL_SECONDS = 1.0
GRACE_SECONDS = 30.0

_watching = threading.Event()


def end_with_worker() -> None:
    """From now on, end this process when the worker that started it is gone. Without a worker there is nothing to do."""
    if STARTED_BY_WORKER in os.environ and not _watching.is_set():
        _watching.set()
        threading.Thread(target=_watch, args=(os.getppid(),), name="end with worker", daemon=True).start()


def _watch(worker: int) -> None:
    while os.getppid() == worker:
        time.sleep(POLL_SECONDS)
    get_logger("flow_runs").error("the worker that started this flow run is gone; ending")
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE_SECONDS)
    os.kill(os.getpid(), signal.SIGKILL)
