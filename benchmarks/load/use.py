"""What the platform's processes use while the load lasts: memory, and time of the processors."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from gkd_core.system.platform_state import PlatformState

SAMPLE_SECONDS = 2.0
FLOWS = "flow runs"
Groups = Mapping[str, list[psutil.Process]]


@dataclass
class Memory:
    """Bytes that a group of processes holds, what they share counted once (PSS)."""

    first: int = 0
    peak: int = 0
    last: int = 0

    def note(self, held: int) -> None:
        """Take note of one more look."""
        self.first = self.first or held
        self.peak = max(self.peak, held)
        self.last = held


@dataclass
class Use:
    """By group: memory over the time, and seconds of processors in it."""

    memory: dict[str, Memory] = field(default_factory=dict)
    cpu_seconds: dict[str, float] = field(default_factory=dict)


def groups_of(state: PlatformState) -> Groups:
    """The processes of each service, and of the flow runs, which the worker has started."""
    groups: dict[str, list[psutil.Process]] = {}
    for service in state.services:
        if service.pid is None:
            continue
        process = psutil.Process(service.pid)
        groups[service.name] = [process] if service.name == "worker" else [process, *_descendants(process)]
        if service.name == "worker":
            groups[FLOWS] = _descendants(process)
    return groups


def _descendants(process: psutil.Process) -> list[psutil.Process]:
    with suppress(psutil.NoSuchProcess):
        return process.children(recursive=True)
    return []


@contextmanager
def watched(groups: Callable[[], Groups]) -> Iterator[Use]:
    """Look at what the groups use while the block lasts; the result is whole when it ends."""
    use, over = Use(), threading.Event()
    began = _cpu_seconds(groups())

    def look() -> None:
        while not over.wait(SAMPLE_SECONDS):
            for name, processes in groups().items():
                use.memory.setdefault(name, Memory()).note(sum(_held(process) for process in processes))

    thread = threading.Thread(target=look, name="memory", daemon=True)
    thread.start()
    try:
        yield use
    finally:
        over.set()
        thread.join()
        use.cpu_seconds.update({name: spent - began[name] for name, spent in _cpu_seconds(groups()).items()})


def _held(process: psutil.Process) -> int:
    try:
        return int(process.memory_full_info().pss)
    except psutil.Error:
        return 0  # has ended meanwhile


def _cpu_seconds(groups: Groups) -> dict[str, float]:
    """Seconds so far; those of flow runs are what the worker has heard of its children that ended."""
    spent = {
        name: sum(sum(process.cpu_times()[:2]) for process in processes) for name, processes in groups.items() if name != FLOWS
    }
    (worker,) = groups["worker"]
    return {**spent, FLOWS: sum(worker.cpu_times()[2:4])}


def disk_bytes(folder: Path) -> int:
    """Bytes that a folder takes on the disk; a file with several names counts once."""
    blocks: dict[int, int] = {}
    for path in [folder, *folder.rglob("*")]:
        with suppress(FileNotFoundError):
            status = path.lstat()
            blocks[status.st_ino] = status.st_blocks
    return 512 * sum(blocks.values())
