"""Whether a recorded process is still alive."""

from __future__ import annotations

import psutil

from gkd_core.system.platform_state import ProcessMark


def is_running(mark: ProcessMark) -> bool:
    """Whether that very process lives: not another one that has its number now."""
    try:
        process = psutil.Process(mark.pid)
        return process.create_time() == mark.began and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
