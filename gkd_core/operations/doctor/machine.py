"""What the checks look at: a machine as plain values and a few queries, so that a test can fake another one."""

from __future__ import annotations

import os
import platform
import resource
import shutil
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path

from gkd_core.operations.doctor.web import Reply, get
from gkd_core.settings import Settings
from gkd_core.system.loopback import is_free

MEMORY = Path("/proc/meminfo")
CGROUP_MEMORY = Path("/sys/fs/cgroup/memory.max")
CGROUP_CPU = Path("/sys/fs/cgroup/cpu.max")
SHARED_MEMORY = Path("/dev/shm")


@dataclass(frozen=True)
class Machine:
    """A machine, and the project and settings that are to run on it.

    Attributes:
        version_of: version of an installed distribution; None where it is not installed.
        requires: requirement lines of an installed distribution.
        listens: addresses at which somebody listens on a port.
        disk_free: bytes free where a folder lies, or would lie.
        shared_memory: bytes of /dev/shm; None where there is none.
        memory: bytes that may be used in all, limits of a container included; None where unknown.
        memory_free: bytes that are free now; None where unknown.
        cpus: cores that may be used, limits of a container included.
        now: seconds since 1970 by this machine's clock.
    """

    project: Path
    settings: Settings
    home: Path
    environment: Mapping[str, str] = field(repr=False)
    version_of: Callable[[str], str | None]
    requires: Callable[[str], list[str]]
    get: Callable[[str, Mapping[str, str]], Reply]
    is_free: Callable[[int], bool]
    listens: Callable[[int], list[str]]
    disk_free: Callable[[Path], int]
    python: str
    cpus: int
    memory: int | None
    memory_free: int | None
    shared_memory: int | None
    open_files: int
    now: float


def this_machine(project: Path, settings: Settings) -> Machine:
    """The machine that this runs on."""
    return Machine(
        project=project,
        settings=settings,
        home=Path.home(),
        environment=dict(os.environ),
        version_of=_version_of,
        requires=lambda name: metadata.requires(name) or [],
        get=get,
        is_free=is_free,
        listens=_listens,
        disk_free=_disk_free,
        python=platform.python_version(),
        cpus=_cpus(),
        memory=_memory("MemTotal"),
        memory_free=_memory("MemAvailable"),
        shared_memory=shutil.disk_usage(SHARED_MEMORY).total if SHARED_MEMORY.is_dir() else None,
        open_files=resource.getrlimit(resource.RLIMIT_NOFILE)[0],
        now=time.time(),
    )


def _version_of(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _listens(port: int) -> list[str]:
    """From Linux's own tables, those of every user; nothing elsewhere."""
    found = []
    for table, family in ((Path("/proc/net/tcp"), socket.AF_INET), (Path("/proc/net/tcp6"), socket.AF_INET6)):
        for line in table.read_text().splitlines()[1:] if table.exists() else ():
            words = line.split()
            address, _, number = words[1].partition(":")
            if words[3] == "0A" and int(number, 16) == port:
                # Words of 32 bits in the machine's order.
                raw = b"".join(bytes.fromhex(address[start : start + 8])[::-1] for start in range(0, len(address), 8))
                found.append(socket.inet_ntop(family, raw))
    return found


def _disk_free(folder: Path) -> int:
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def _cpus() -> int:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota, _, period = (CGROUP_CPU.read_text().strip() if CGROUP_CPU.exists() else "max").partition(" ")
    return cores if quota == "max" else max(1, min(cores, round(int(quota) / int(period))))


def _memory(name: str) -> int | None:
    if not MEMORY.exists():
        return None
    lines = (line.split() for line in MEMORY.read_text().splitlines())
    total = next((int(words[1]) * 1024 for words in lines if words[0] == f"{name}:"), None)
    limit = CGROUP_MEMORY.read_text().strip() if CGROUP_MEMORY.exists() else "max"
    return total if limit == "max" or total is None else min(total, int(limit))
