"""Ray Train's workers among the processes of a test."""

from __future__ import annotations

import psutil


def ray_workers() -> list[psutil.Process]:
    """Training workers below this process."""
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            if "RayTrainWorker" in " ".join(process.cmdline()):
                found.append(process)
        except psutil.Error:
            continue
    return found
