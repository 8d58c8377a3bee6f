"""The machine itself: cores, memory, GPUs, limits, clock."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path

from gkd_core.operations.doctor.disk import GIB
from gkd_core.operations.doctor.finding import Finding, error, warning, well
from gkd_core.operations.doctor.machine import Machine

# A training process with torch loaded and a small model: what the embedded world's runs need each, rounded up.
WORKER_BYTES = 1.5 * GIB
LEAST_BYTES = 2 * GIB
SHARED_BYTES = GIB
OPEN_FILES = 4096
CLOCK_SECONDS = 300.0  # S3 refuses signatures that are a quarter of an hour off
DRIVER_SECONDS = 10


def check_cpus(machine: Machine) -> Iterable[Finding]:
    """Cores, against the processes that will want one each."""
    compute = machine.settings.compute
    wanted = _processes(machine) * (compute.threads + compute.loaders)
    found = (
        f"{machine.cpus} for {wanted} (compute.workers {compute.workers}, threads {compute.threads}, loaders {compute.loaders})"
    )
    if wanted > machine.cpus:
        yield warning("CPUs", found, "lower compute.workers, threads or loaders, or give stage one to a cluster: compute.address")
    else:
        yield well("CPUs", found)


def check_memory(machine: Machine) -> Iterable[Finding]:
    """Memory that is free, against what the training processes need at least."""
    if machine.memory_free is None or machine.memory is None:
        return
    free, workers = machine.memory_free, _processes(machine)
    found = f"{free / GIB:.1f} of {machine.memory / GIB:.1f} GiB free"
    if free < LEAST_BYTES:
        yield error("memory", found, "end other programs: torch alone needs most of this")
    elif free < LEAST_BYTES + workers * WORKER_BYTES:
        yield warning("memory", f"{found}, for {workers} training processes", "lower compute.workers, or end other programs")
    else:
        yield well("memory", found)


def _processes(machine: Machine) -> int:
    """Training processes that this machine has at once."""
    return max(1, _workers_here(machine))


def _workers_here(machine: Machine) -> int:
    """Ray's workers of stage one, where they are this machine's."""
    compute = machine.settings.compute
    return 0 if compute.elsewhere else compute.workers


def check_shared_memory(machine: Machine) -> Iterable[Finding]:
    """/dev/shm, where Ray's workers hand objects to each other; containers are born with 64 MB of it."""
    if not _workers_here(machine) and machine.settings.evaluate.workers == 0:
        return
    size = machine.shared_memory
    if size is None:
        yield warning("/dev/shm", "absent; Ray will use the disk", "mount a tmpfs there")
    elif size < SHARED_BYTES:
        yield warning("/dev/shm", f"{size / GIB:.2f} GiB; Ray will use the disk", "give the container more: --shm-size=2g")
    else:
        yield well("/dev/shm", f"{size / GIB:.1f} GiB")


def check_open_files(machine: Machine) -> Iterable[Finding]:
    """The limit of open files: Ray and the servers keep many sockets."""
    found = f"{machine.open_files} open files a process"
    if machine.open_files < OPEN_FILES:
        yield warning("open files", found, f"ulimit -n 65536, before make up; below {OPEN_FILES} Ray may run out")
    else:
        yield well("open files", found)


def check_gpus(machine: Machine) -> Iterable[Finding]:
    """GPUs as torch sees them, and as the driver does."""
    import torch

    device, seen = machine.settings.compute.device, torch.cuda.is_available()
    driver = _driver()
    build = f"torch {torch.__version__}, " + (f"CUDA {torch.version.cuda}" if torch.version.cuda else "built for the CPU only")
    if seen:
        names = ", ".join(torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count()))
        yield well("GPUs", f"{names}; driver {driver or 'unknown'}; {build}")
    elif driver and torch.version.cuda is None:
        yield warning("GPUs", f"driver {driver}, but {build}", "install torch and torchvision from PyPI, whose builds have CUDA")
    elif driver:
        yield error("GPUs", f"driver {driver}, but torch sees none; {build}", "update the driver, or check CUDA_VISIBLE_DEVICES")
    elif device == "cuda":
        yield error("GPUs", f"none; {build}; compute.device is cuda", "set compute.device=auto, or run where there is a GPU")
    else:
        yield well("GPUs", f"none, so the CPU trains; {build}")


def _driver() -> str | None:
    """Version of NVIDIA's driver; None where there is none."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return None
    command = [program, "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=DRIVER_SECONDS, check=False)
    except (subprocess.TimeoutExpired, OSError):
        return None
    return done.stdout.splitlines()[0].strip() if done.returncode == 0 and done.stdout.strip() else None


def check_clock(machine: Machine) -> Iterable[Finding]:
    """The clock: against this program's own files, and against the object store that checks it."""
    shown = f"{datetime.fromtimestamp(machine.now, UTC):%Y-%m-%d %H:%M:%S} UTC"
    written = Path(__file__).stat().st_mtime
    endpoint = machine.environment.get("AWS_ENDPOINT_URL")
    date = machine.get(endpoint, {}).headers.get("Date") if endpoint else None
    offset = machine.now - parsedate_to_datetime(date).timestamp() if date else 0.0
    if machine.now < written - CLOCK_SECONDS:
        yield error("clock", f"{shown}, before this program was installed", "set the clock; schedules and S3 depend on it")
    elif abs(offset) > CLOCK_SECONDS:
        yield error("clock", f"{shown}, {offset:+.0f} s from the object store's", "set the clock (NTP): S3 refuses such requests")
    else:
        yield well("clock", shown)
