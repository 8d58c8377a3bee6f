"""How long a model takes for a batch, and another in turn with it, so that both meet the same moods of the machine."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from gkd_core.errors import GkdError, SettingsError
from gkd_core.messages import one_line
from gkd_core.models.flops import Cost, Size, recorded_cost
from gkd_core.models.segmentor import recorded_segmentor
from gkd_core.predict.latency import FEWEST, Latency, ModelLatency, Precision, label_of, summary
from gkd_core.predict.memory import MemoryJob, forward, peak_bytes, random_images
from gkd_core.predict.student import device_named
from gkd_core.records import SegmentorCheckpoint
from gkd_core.settings import EncoderSettings

WARM_UP = 3
CPU_FACTS = Path("/proc/cpuinfo")
NO_ROOM = "not enough memory"  # what torch says of a CPU's, in a plain RuntimeError

Result = TypeVar("Result")
Watch = Callable[[int], AbstractContextManager[Callable[[int], None]]]


@dataclass(frozen=True)
class Subject:
    """A model that is to be measured.

    Attributes:
        title: what messages call it.
        record: of stage two.
        network: what it describes, on the CPU.
        precision: fp32 or bf16 (autocast).
        sha256: of its weights; None where they are random.
    """

    title: str
    record: SegmentorCheckpoint
    network: nn.Module
    precision: Precision = "fp32"
    sha256: str | None = None


@dataclass(frozen=True)
class Conditions:
    """How it is measured: size (height, width) in pixels, images of a pass, threads on a CPU, and timed passes."""

    size: Size
    batch: int
    threads: int
    repeats: int
    device: torch.device


def with_encoder(model: Subject, encoder: EncoderSettings, title: str) -> Subject:
    """The model with another encoder under its decoder, of random weights, as no figure depends on their values.

    So an encoder that has no decoder, such as a teacher, is held against the model as what would answer in its place.

    Raises:
        GkdError: there is no such encoder.
    """
    record = model.record.model_copy(update={"encoder": encoder.model_copy(update={"weights": "random"})})
    network = _told(title, partial(recorded_segmentor, record))
    return Subject(title, record, network.eval(), model.precision)


def unwatched(rounds: int) -> AbstractContextManager[Callable[[int], None]]:
    """A `Watch` that shows nothing."""
    return nullcontext(lambda done: None)


def measure_latency(model: Subject, against: Subject | None, conditions: Conditions, watch: Watch = unwatched) -> Latency:
    """Measure a model, and another in turn with it where one is given.

    Args:
        watch: from the number of rounds, those that warm up too, what is told how many are done.

    Raises:
        GkdError: a model cannot see images of that size, or there is no room for them.
    """
    subjects = [model] if against is None else [model, against]
    torch.set_num_threads(conditions.threads)
    # Counted first, as that refuses a size before anything is computed.
    costs = [_told(each.title, partial(recorded_cost, each.record, conditions.size)) for each in subjects]
    for each in subjects:
        each.network.eval().to(conditions.device)
    peaks = [_told(each.title, partial(_peak, each, conditions)) for each in subjects]
    images = random_images(conditions.batch, conditions.size, conditions.device)
    passes = [_pass(each, images) for each in subjects]
    with watch(WARM_UP + conditions.repeats) as advance:
        times = in_turn(passes, conditions.repeats, settled(conditions.device), advance)
    measured = [_figures(*facts, conditions.batch) for facts in zip(subjects, costs, peaks, times, strict=True)]
    return Latency(
        version=version("gkd"), torch=torch.__version__, device=str(conditions.device), processor=processor(conditions.device),
        size=conditions.size, batch=conditions.batch, threads=conditions.threads, warm_up=WARM_UP, repeats=conditions.repeats,
        model=measured[0], against=measured[1] if len(measured) > 1 else None,
    )  # fmt: skip


def in_turn(
    passes: Sequence[Callable[[], object]],
    repeats: int,
    settle: Callable[[], None],
    advance: Callable[[int], None] = lambda done: None,
    clock: Callable[[], float] = time.perf_counter,
) -> list[list[float]]:
    """The seconds of each of several works, done one after the other in each round; the first rounds warm up.

    Args:
        repeats: rounds that count, 2 or more.
        settle: returns once all that was begun is done; called before and after each work.
    """
    if repeats < FEWEST:
        raise SettingsError(f"repeats: given {repeats}; expected {FEWEST} or more, as fewer have no 95th percentile")
    found: list[list[float]] = [[] for _ in passes]
    for number in range(WARM_UP + repeats):
        for times, work in zip(found, passes, strict=True):
            settle()
            began = clock()
            work()
            settle()
            seconds = clock() - began
            times += [seconds] if number >= WARM_UP else []
        advance(number + 1)
    return found


def latency_device(name: str) -> torch.device:
    """A device that can be timed, by its name; `SettingsError` where it is none, or is not here."""
    device = device_named(name)
    if device.type not in ("cpu", "cuda"):
        raise SettingsError(f"device: latency is measured on cpu or cuda, given '{device}'; give one of these, or auto")
    return device


def settled(device: torch.device) -> Callable[[], None]:
    """What waits for all that a device was asked to do; a CPU has done it by the time that a call returns."""
    return (lambda: torch.cuda.synchronize(device)) if device.type == "cuda" else lambda: None


def processor(device: torch.device) -> str:
    """What the maker calls a device."""
    if device.type == "cuda":
        return label_of(torch.cuda.get_device_name(device))
    with suppress(OSError):
        for line in CPU_FACTS.read_text(encoding="utf-8", errors="replace").splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name" and value.strip():
                return label_of(value)
    return label_of(platform.machine())


def _pass(subject: Subject, images: Tensor) -> Callable[[], object]:
    run = forward(subject.network, subject.precision)
    return partial(_told, subject.title, partial(run, images))


def _peak(subject: Subject, conditions: Conditions) -> int | None:
    job = MemoryJob(
        model=subject.record, size=conditions.size, batch=conditions.batch, threads=conditions.threads,
        precision=subject.precision,
    )  # fmt: skip
    return peak_bytes(job, subject.network, conditions.device)


def _figures(subject: Subject, cost: Cost, peak: int | None, seconds: Sequence[float], batch: int) -> ModelLatency:
    times = summary(seconds)
    return ModelLatency(
        arch=subject.record.encoder.arch,
        decoder=subject.record.decoder,
        sha256=subject.sha256,
        precision=subject.precision,
        parameters=cost.parameters,
        flops=cost.flops,
        median_seconds=times.median,
        p95_seconds=times.p95,
        images_per_second=batch / times.median,
        peak_bytes=peak,
    )


def _told(title: str, work: Callable[[], Result]) -> Result:
    """Do it; where it fails by what was asked, say of which model."""
    try:
        return work()
    except GkdError as error:
        raise type(error)(f"{title}: {error}") from None
    except torch.OutOfMemoryError:
        raise GkdError(f"{title}: the device has no memory left; give a smaller --batch or --size") from None
    except RuntimeError as error:
        if NO_ROOM in str(error):
            raise GkdError(f"{title}: {one_line(error, 120)}; give a smaller --batch or --size") from None
        raise
