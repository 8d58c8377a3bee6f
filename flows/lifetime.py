"""A flow's process ends at once on a signal, and with the worker that started it.

Told to end (cancelled, say), its main thread would wait for the threads of its tasks, and those for the stages that they run,
until Prefect's time limit, and then be killed. So its children are ended the moment that the signal comes.

Without its worker a flow could go on, but nobody could cancel it, its concurrency slot would be given to another, and what it
prints would go into a broken pipe. So it ends itself, as by a signal: Prefect hears that it crashed, MLflow that it failed,
and its children go with it. The worker that takes the dead one's place can then run it again, from its last checkpoints.
"""

import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable

from gkd_core.cli.run import EXIT_INTERRUPTED
from gkd_core.system.child_process import end_children, kill_children

STARTED_BY_WORKER = "PREFECT__FLOW_RUN_ID"  # in the environment of a process that a worker starts
POLL_SECONDS = 1.0
GRACE_SECONDS = 30.0
LEAVE_SECONDS = 14.0  # a flow has for its end on a command line; then it is ended, so that all is over within 20
UNWIND_SECONDS = 2.0  # for a flow whose last child was killed then, to leave by itself and tell MLflow
log = logging.getLogger("prefect.flow_runs")  # what it says, Prefect's server keeps with the run

_watching = threading.Event()


def end_promptly() -> None:
    """From now on, end this process when the worker that started it is gone, and its children as soon as it gets a signal to end.

    Called from the main thread. Without a worker there is nothing to do: whoever started the process then ends it.
    """
    if not is_started_by_worker() or _watching.is_set():
        return
    _watching.set()
    threading.Thread(target=_watch, args=(os.getppid(),), name="end with worker", daemon=True).start()
    _on_signals({signal.SIGTERM}, end_children)


def is_started_by_worker() -> bool:
    """Whether this process is a flow run that a worker has started."""
    return STARTED_BY_WORKER in os.environ


def end_in_time(last_words: str, clean: Callable[[], None]) -> None:
    """From now on, end this process within seconds of SIGTERM or Ctrl-C, whatever its threads wait for, with all that it started.

    Called from the main thread of a command line. Stages end at once, and so mostly does the flow. Where it does not, as a
    thread that asks a server which is gone cannot be interrupted, the process is ended as it stands.

    Args:
        last_words: for the terminal then.
        clean: what else is to be removed then.
    """
    if _watching.is_set():
        return
    _watching.set()

    def end() -> None:
        end_children()
        time.sleep(LEAVE_SECONDS)
        kill_children()
        time.sleep(UNWIND_SECONDS)
        clean()
        print(last_words, file=sys.stderr, flush=True)
        os._exit(EXIT_INTERRUPTED)

    _on_signals({signal.SIGTERM, signal.SIGINT}, end)


def _on_signals(numbers: set[signal.Signals], act: Callable[[], None]) -> None:
    """Have a thread of ours act on the first of these signals, beside whatever handlers there are."""
    # Prefect's own handler stays in place, as Prefect tells by it whether a run can be cancelled: Python also writes the number
    # of each signal that comes to a socket, which the thread reads.
    signals, theirs = socket.socketpair()
    theirs.setblocking(False)
    signal.set_wakeup_fd(theirs.detach())

    def listen() -> None:
        while numbers.isdisjoint(signals.recv(64)):
            pass
        act()

    threading.Thread(target=listen, name="end children", daemon=True).start()


def _watch(worker: int) -> None:
    while os.getppid() == worker:
        time.sleep(POLL_SECONDS)
    end_ourselves("the worker that started this flow run is gone")


def end_ourselves(reason: str) -> None:
    """End this process as by a signal, whatever its threads wait for."""
    log.error("%s; ending", reason)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE_SECONDS)
    os.kill(os.getpid(), signal.SIGKILL)
