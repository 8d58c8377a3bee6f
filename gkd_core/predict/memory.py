"""The most memory that a model takes at once: its weights, and what a pass takes beside them.

A GPU's allocator keeps count. A CPU has no such count, and the process that times a model holds much besides: so a fresh process
(this module, run as a program) builds the same architecture, makes a pass to have libraries and caches in place, has the kernel
forget the highest mark, makes another and reads how far the mark rose.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from itertools import chain
from pathlib import Path

import torch
from torch import Tensor, nn

from gkd_core.errors import GkdError
from gkd_core.evaluate.inference import precision_of
from gkd_core.messages import last_words
from gkd_core.models.flops import Size
from gkd_core.models.segmentor import recorded_segmentor
from gkd_core.predict.latency import Precision
from gkd_core.records import Record, SegmentorCheckpoint

STATUS, CLEAR_REFS = Path("/proc/self/status"), Path("/proc/self/clear_refs")
FORGET_HIGHEST = "5"  # proc_pid_clear_refs(5): the highest mark becomes the present one
# glibc keeps freed blocks for later, more of them the longer it runs; above a fixed size each is now given back at once.
GIVE_BACK = {"MALLOC_MMAP_THRESHOLD_": str(128 * 1024)}


class MemoryJob(Record):
    """A pass whose memory is to be measured; `size` is (height, width) in pixels."""

    model: SegmentorCheckpoint
    size: Size
    batch: int
    threads: int
    precision: Precision


def peak_bytes(job: MemoryJob, network: nn.Module, device: torch.device) -> int | None:
    """Bytes of the network's weights and of what a pass takes beside them, the images too; None where Linux does not tell.

    Args:
        network: what the job describes, on the device.

    Raises:
        GkdError: there is no room for it.
    """
    weights = sum(tensor.numel() * tensor.element_size() for tensor in chain(network.parameters(), network.buffers()))
    grown = _growth_on_gpu(job, network, device) if device.type == "cuda" else _growth_in_child(job)
    return None if grown is None else weights + grown


def forward(network: nn.Module, precision: Precision) -> Callable[[Tensor], object]:
    """A pass over images (B, 3, H, W), which keeps nothing for a backward pass."""

    @torch.inference_mode()
    def run(images: Tensor) -> object:
        with precision_of(images.device, precision):
            return network(images)

    return run


def random_images(count: int, size: Size, device: torch.device) -> Tensor:
    """Images (count, 3, H, W) of noise in 0..1 on a device, always the same."""
    return torch.rand(count, 3, *size, generator=torch.Generator().manual_seed(0)).to(device)


def resident_growth(work: Callable[[], object]) -> int | None:
    """By how many bytes this process grows at most while it does a work for the second time; None where Linux does not tell."""
    work()
    with suppress(AttributeError, OSError):  # a C library other than glibc
        ctypes.CDLL(None).malloc_trim(0)
    try:
        CLEAR_REFS.write_text(FORGET_HIGHEST, encoding="ascii")
        before = _stated("VmRSS")
        work()
        return max(0, _stated("VmHWM") - before)
    except (OSError, LookupError):
        return None


def main() -> None:
    """Read a job, and print by how many bytes its pass makes this process grow; nothing where Linux does not tell."""
    job = MemoryJob.model_validate_json(sys.stdin.buffer.read())
    torch.set_num_threads(job.threads)
    grown = resident_growth(_pass(job, recorded_segmentor(job.model).eval(), torch.device("cpu")))
    print("" if grown is None else grown)


def _pass(job: MemoryJob, network: nn.Module, device: torch.device) -> Callable[[], object]:
    run = forward(network, job.precision)
    return lambda: run(random_images(job.batch, job.size, device))


def _growth_on_gpu(job: MemoryJob, network: nn.Module, device: torch.device) -> int:
    work = _pass(job, network, device)
    work()
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    work()
    torch.cuda.synchronize(device)
    return int(torch.cuda.max_memory_allocated(device)) - before


def _growth_in_child(job: MemoryJob) -> int | None:
    done = subprocess.run(
        [sys.executable, "-P", *_program()],
        input=job.model_dump_json(),
        env={**os.environ, **GIVE_BACK},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode < 0:
        raise GkdError(f"the process that measures its memory was killed (signal {-done.returncode}); give a smaller --batch "
                       "or --size")  # fmt: skip
    if done.returncode:
        raise GkdError(f"its memory could not be measured ({last_words(done.stderr, 200)}); give a smaller --batch or --size")
    return int(done.stdout) if done.stdout.strip() else None


def _program() -> list[str]:
    return ["-m", __name__]


def _stated(key: str) -> int:
    """Bytes that the kernel states of this process; `LookupError` where it states none."""
    for line in STATUS.read_text(encoding="ascii", errors="replace").splitlines():
        name, _, value = line.partition(":")
        if name == key:
            return int(value.split()[0]) * 1024
    raise LookupError(key)


if __name__ == "__main__":
    main()
