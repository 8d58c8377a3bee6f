"""A flow ends itself where Prefect's server has come to count it as dead.

A flow that is cut off from the server for longer than a heartbeat may be missed is marked Crashed there, and its concurrency slot
is given to the next run. It may be alive all the same, and would work beside that one, report to MLflow runs that were ended, and
in the end call itself completed. So it asks how it stands, and ends where it is told that its heartbeat was missed, or where
nobody has told it anything for long. The same flow run again goes on from its last checkpoints.
"""

import threading
import time
from collections.abc import Callable
from typing import Any
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import State
from prefect.settings import PREFECT_CLIENT_MAX_RETRIES, temporary_settings

from flows.automations import SILENT
from flows.lifetime import end_ourselves, is_started_by_worker
from flows.server import HEARTBEAT_SECONDS
from gkd_core.messages import one_line

ASK_SECONDS = 10.0  # for an answer
LOST_SECONDS = 600.0  # a server that is only being started again, or has much to do, is waited for


def end_where_counted_dead(run: UUID) -> None:
    """From now on, end this process where the server counts its flow run as dead.

    A flow that no worker started has a server of its own.
    """
    if is_started_by_worker():
        watch = (lambda: _state(run), end_ourselves, HEARTBEAT_SECONDS)
        threading.Thread(target=look, args=watch, name="end where counted dead", daemon=True).start()


def look(ask: Callable[[], State[Any] | None], end: Callable[[str], object], seconds: float) -> None:
    """Ask now and then how the run stands, until it is to be ended; then do that."""
    heard = time.monotonic()
    while True:
        time.sleep(seconds)
        try:
            state = ask()
        except Exception as error:  # whatever it is that keeps the two apart
            silence = time.monotonic() - heard
            if silence >= LOST_SECONDS:
                end(f"Prefect's server has not answered for {silence:.0f} s ({one_line(error, 300) or type(error).__name__})")
                return
            continue
        heard = time.monotonic()
        if state is not None and state.is_crashed() and SILENT in (state.message or ""):
            end(f"Prefect's server counts this flow run as dead ({state.message})")
            return


def _state(run: UUID) -> State[Any] | None:
    # Its own way to repeat what is not answered would take many minutes.
    with (
        temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0}),
        get_client(httpx_settings={"timeout": ASK_SECONDS}, sync_client=True) as client,
    ):
        return client.read_flow_run(run).state
