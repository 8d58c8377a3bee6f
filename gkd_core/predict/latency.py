"""What a model takes at a stated size, and beside it what another does: the record of `gkd latency`, and its figures in words."""

from __future__ import annotations

import re
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, ClassVar, Literal, NamedTuple

from pydantic import Field

from gkd_core.errors import GkdError
from gkd_core.records import Amount, Record, Whole
from gkd_core.untrusted import Label, PlainName, Sha256

UNKNOWN = "–"
COLUMNS = ("median, ms", "95 %, ms", "images/s", "peak memory, MiB", "GFLOP an image", "parameters, M")
MIB = 2**20
FEWEST = 2  # passes that have a 95th percentile
Precision = Literal["fp32", "bf16"]
_ODD = re.compile(r"[^\w .,:()&/+#-]+")

Side = Annotated[int, Field(ge=1, le=2**14)]
Count = Annotated[int, Field(ge=1, le=2**20)]
Seconds = Annotated[float, Field(gt=0, le=1e6, allow_inf_nan=False)]


class ModelLatency(Record):
    """What one model takes from images to logits at their size.

    Attributes:
        arch: of its encoder.
        sha256: of its weights; null where they are random: an encoder was put under the decoder of the model beside it.
        parameters: with its decoder.
        flops: of one image, two for a multiplication and an addition.
        median_seconds, p95_seconds: of a pass over one batch; the 95th percentile is interpolated, as numpy does it.
        images_per_second: the images of a batch over the median.
        peak_bytes: its weights, and the most that a pass takes beside them, the images too; null where the system cannot tell.
    """

    arch: PlainName
    decoder: PlainName
    sha256: Sha256 | None = None
    precision: Precision
    parameters: Whole
    flops: Amount
    median_seconds: Seconds
    p95_seconds: Seconds
    images_per_second: Amount
    peak_bytes: Whole | None

    @property
    def words(self) -> str:
        """Which architecture it is."""
        return f"{self.arch}, {self.decoder} decoder"


class Latency(Record):
    """What a model takes on a machine, and another beside it, measured in turn.

    Attributes:
        version, torch: of this program and of PyTorch.
        device: cpu, or cuda:0.
        processor: what the maker calls it.
        size: of an image, (height, width) in pixels.
        batch: images of a pass.
        threads: on a CPU.
        warm_up, repeats: passes that are not timed, and that are.
        against: null where the model was measured alone.
    """

    remedy: ClassVar[str] = "measure again with `gkd latency`"
    kind: Literal["latency"] = "latency"
    version: PlainName
    torch: PlainName
    device: Annotated[str, Field(pattern=r"^(cpu|cuda(:\d{1,3})?)$")]
    processor: Label
    size: tuple[Side, Side]
    batch: Count
    threads: Count
    warm_up: Annotated[int, Field(ge=0, le=2**20)]
    repeats: Count
    model: ModelLatency
    against: ModelLatency | None = None


class Summary(NamedTuple):
    """Of the seconds that passes took."""

    median: float
    p95: float


def summary(seconds: Sequence[float]) -> Summary:
    """Median and 95th percentile (linear between neighbours, as numpy's default) of two or more times."""
    return Summary(statistics.median(seconds), statistics.quantiles(seconds, n=20, method="inclusive")[-1])


def read_latency(path: Path) -> Latency:
    """The record that `gkd latency --output` wrote.

    Raises:
        GkdError: there is none, or it is no such record.
    """
    if not path.exists():
        raise GkdError(f"{path}: no such file; write it with `gkd latency MODEL --output {path.name}`")
    return Latency.read(path)


def check_latency(latency: Latency, sha256: str) -> None:
    """Raise `GkdError` where it was measured of another student than the one whose weights have this digest."""
    if latency.model.sha256 != sha256:
        measured = UNKNOWN if latency.model.sha256 is None else latency.model.sha256[:12]
        raise GkdError(f"latency of another student ({latency.model.words}, sha256 {measured}; this one is {sha256[:12]}): "
                       "measure this one with `gkd latency`")  # fmt: skip


def conditions_of(latency: Latency) -> str:
    """Under which conditions it was measured, in words."""
    height, width = latency.size
    threads = f", {latency.threads} thread{'s' * (latency.threads > 1)}" if latency.device == "cpu" else ""
    images = f"{height} × {width} pixels" + (f", {latency.batch} at once" if latency.batch > 1 else "")
    parts = [each for each in (latency.model, latency.against) if each is not None]
    precision = " and ".join(dict.fromkeys(each.precision for each in parts))
    turns = " in turn" if latency.against is not None else ""
    return (f"{images}; {latency.device} ({latency.processor}){threads}; {precision}; torch {latency.torch}; "
            f"{latency.repeats} passes{turns} after {latency.warm_up} to warm up")  # fmt: skip


def rows_of(latency: Latency, model: str, against: str) -> list[list[str]]:
    """A line a model under `COLUMNS`, each behind its name; where there are two, a third: the other's over the model's."""
    rows = [[model, *_cells(latency.model)]]
    if latency.against is not None:
        rows += [[against, *_cells(latency.against)], ["ratio, second to first", *_ratios(latency.model, latency.against)]]
    return rows


def figures_of(model: ModelLatency) -> tuple[float | None, ...]:
    """The figures of a model in the order and units of `COLUMNS`; None where one is not known."""
    return (
        1000 * model.median_seconds,
        1000 * model.p95_seconds,
        model.images_per_second,
        None if model.peak_bytes is None else model.peak_bytes / MIB,
        model.flops / 1e9,
        model.parameters / 1e6,
    )


def label_of(name: str) -> str:
    """A name that a maker gave, without what no table or page can show."""
    return " ".join(_ODD.sub(" ", name).split()).lstrip(" .,:()&/+#-")[:200].strip() or "unknown"


def _cells(model: ModelLatency) -> list[str]:
    return [UNKNOWN if value is None else three_digits(value) for value in figures_of(model)]


def _ratios(model: ModelLatency, against: ModelLatency) -> list[str]:
    return [ratio(own, other) for own, other in zip(figures_of(model), figures_of(against), strict=True)]


def ratio(own: float | None, other: float | None) -> str:
    """How many times the one is the other; a dash where either is not known."""
    return UNKNOWN if own is None or other is None or own == 0 else f"{three_digits(other / own)} ×"


def three_digits(value: float) -> str:
    """Three digits that count, thousands apart."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
