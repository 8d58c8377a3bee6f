"""A flow's process ends at once when it is told to, and with the worker that started it.

Told to end (cancelled, say), its main thread would wait for the threads of its tasks, and those for the stages that they run,
until Prefect's patience is over and it is killed. So its children are ended the moment that the signal comes.

Without its worker a flow could go on, but nobody could cancel it, its concurrency slot would be given to another, and what it
prints would go into a broken pipe. So it ends itself, as by a signal: Prefect hears that it crashed, MLflow that it failed,
and its children go with it. The worker that takes the dead one's place can then run it again, from its last checkpoints.
"""

import logging
import os
import signal
import socket
import threading
import time

from gkd_core.system.child_process import end_children

STARTED_BY_WORKER = "PREFECT__FLOW_RUN_ID"  # in the environment of a process that a worker starts
POLL_SECONDS = 1.0
GRACE_SECONDS = 30.0
log = logging.getLogger("prefect.flow_runs")  # what it says, Prefect's server keeps with the run

_watching = threading.Event()


def end_promptly() -> None:
    """From now on, end this process when the worker that started it is gone, and its children as soon as it is told to end.

    Called from the main thread. Without a worker there is nothing to do: whoever started the process then ends it.
    """
    if STARTED_BY_WORKER not in os.environ or _watching.is_set():
        return
    _watching.set()
    threading.Thread(target=_watch, args=(os.getppid(),), name="end with worker", daemon=True).start()
    # Prefect's own handler stays in place, as Prefect tells by it whether a run can be cancelled: Python also writes the number
    # of each signal that comes to a socket, which a thread of ours reads.
    signals, theirs = socket.socketpair()
    theirs.setblocking(False)
    signal.set_wakeup_fd(theirs.detach())
    threading.Thread(target=_listen, args=(signals,), name="end children", daemon=True).start()


def _listen(signals: socket.socket) -> None:
    while signal.SIGTERM not in signals.recv(64):
        pass
    end_children()


def _watch(worker: int) -> None:
    while os.getppid() == worker:
        time.sleep(POLL_SECONDS)
    log.error("the worker that started this flow run is gone; ending")
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE_SECONDS)
    os.kill(os.getpid(), signal.SIGKILL)
