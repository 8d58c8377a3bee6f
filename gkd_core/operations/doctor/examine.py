"""The list of checks, and how they are run: side by side, in bounded time."""

from __future__ import annotations

import time
from collections.abc import Mapping
from queue import Empty, Queue
from threading import Thread
from types import MappingProxyType

from gkd_core.errors import GkdError
from gkd_core.operations.doctor import backends, credentials, disk, hardware, network, versions
from gkd_core.operations.doctor.finding import Check, Finding, error, warning
from gkd_core.operations.doctor.machine import Machine

CHECKS: Mapping[str, Check] = MappingProxyType(
    {
        "Python": versions.check_python,
        "packages": versions.check_packages,
        "torchvision": versions.check_torchvision,
        "requirements.txt": versions.check_pins,
        "ports": network.check_ports,
        "Prefect server": network.check_prefect,
        "MLflow store": network.check_mlflow,
        "access": network.check_doors,
        "platform's keys": network.check_keys,
        "PostgreSQL": backends.check_postgres,
        "Ray": backends.check_ray,
        "storage": backends.check_storage,
        "names and passwords": credentials.check_pairs,
        "files of secrets": credentials.check_files,
        "Ray token": credentials.check_ray_token,
        "disk": disk.check_room,
        "links to the cache": disk.check_links,
        "CPUs": hardware.check_cpus,
        "memory": hardware.check_memory,
        "GPUs": hardware.check_gpus,
        "/dev/shm": hardware.check_shared_memory,
        "open files": hardware.check_open_files,
        "clock": hardware.check_clock,
    }
)
SECONDS = 30.0


def examine(machine: Machine, checks: Mapping[str, Check], seconds: float = SECONDS) -> list[Finding]:
    """All findings, in the order of the checks.

    Args:
        seconds: time for all of them together. One that is not done by then is a finding itself.
    """
    results: Queue[tuple[str, list[Finding]]] = Queue()
    for name, check in checks.items():
        # Daemons: one that hangs on a dead service must not keep the command from ending.
        Thread(target=lambda n=name, c=check: results.put((n, _findings(n, c, machine))), daemon=True).start()
    done: dict[str, list[Finding]] = {}
    deadline = time.monotonic() + seconds
    while len(done) < len(checks):
        try:
            name, findings = results.get(timeout=max(0.0, deadline - time.monotonic()))
        except Empty:
            break
        done[name] = findings
    late = f"no answer within {seconds:.0f} s"
    return [
        finding
        for name in checks
        for finding in done.get(name, [error(name, late, "see whether the service or disk that it asks is stuck")])
    ]


def _findings(name: str, check: Check, machine: Machine) -> list[Finding]:
    try:
        return list(check(machine))
    except ModuleNotFoundError as missing:
        return [warning(name, f"not looked at: {missing.name} is not installed", "uv pip install -r requirements.txt")]
    except (GkdError, OSError) as failure:
        return [error(name, str(failure).splitlines()[0], "correct what it names, then run gkd doctor again")]
