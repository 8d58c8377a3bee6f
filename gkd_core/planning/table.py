"""What a run would cost, in the terminal: its work, and on a cluster its time, limits, network and storage, and what to set."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence

from rich import box
from rich.console import Console
from rich.table import Table

from gkd_core.planning.cluster import Cluster
from gkd_core.planning.estimate import RunEstimate
from gkd_core.planning.simulate import StageEstimate
from gkd_core.planning.work import SECONDS_IN_AN_HOUR, Machine, StageWork
from gkd_core.settings import Settings

WIDTH = 130
UNKNOWN = "?"


def print_work(works: Sequence[StageWork], machine: Machine) -> None:
    """Print one row a stage run, their sum, and the parameters of each part."""
    parts = list(dict.fromkeys(part for work in works for part, cost in work.costs.items() if cost.flops))
    grid = Table(
        title=f"Estimated work; hours on one GPU of {machine.peak_tflops:g} TFLOP/s at {machine.mfu:.0%} MFU",
        title_justify="left",
    )
    for column in ("stage", "images", "updates × batch"):
        grid.add_column(column, justify="left" if column == "stage" else "right")
    for part in parts:
        grid.add_column(f"{part}\nGFLOP", justify="right")
    grid.add_column("in all\nPFLOP", justify="right")
    grid.add_column("GPU-\nhours", justify="right")
    for work in works:
        grid.add_row(*_row(work, parts, machine))
    known = sum(work.flops or 0.0 for work in works)
    grid.add_section()
    grid.add_row("all", "", "", *("" for _ in parts), three_digits(known / 1e15), three_digits(machine.hours(known)))
    console = Console(markup=False) if sys.stdout.isatty() else Console(width=WIDTH, markup=False)
    console.print(grid)
    if any(work.flops is None for work in works):
        console.print(f"{UNKNOWN}: the images are not here and the catalog states no number or size; not in the sum.")
    console.print(f"Parameters: {_parameters(works)}.")


def _row(work: StageWork, parts: Sequence[str], machine: Machine) -> list[str]:
    """Cells of one stage run. GFLOP are those of one image, or of one window in evaluation."""
    length = f"{work.views:,} windows" if work.updates is None and work.views is not None else UNKNOWN
    if work.updates is not None:
        length = f"{work.updates:,} × {work.batch_size}"
    flops = work.flops
    return [
        work.name,
        UNKNOWN if work.images is None else f"{work.images:,}",
        length,
        *(three_digits(work.costs[part].flops / 1e9) if part in work.costs else "" for part in parts),
        UNKNOWN if flops is None else three_digits(flops / 1e15),
        UNKNOWN if flops is None else three_digits(machine.hours(flops)),
    ]


def _parameters(works: Sequence[StageWork]) -> str:
    counts = {part: cost.parameters for work in works for part, cost in work.costs.items()}
    listed = [f"{part} {count / 1e6:.1f} M" for part, count in counts.items()]
    if {"student", "decoder"} <= counts.keys():
        listed.append(f"student and decoder {(counts['student'] + counts['decoder']) / 1e6:.1f} M")
    return ", ".join(listed)


def three_digits(value: float) -> str:
    """Three digits that count, without exponents."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


# What moves a limit, by its name.
ADVICE = {
    "launches": "a larger batch_size for this many workers, or fewer nodes; compile: true launches less",
    "input": "more compute.loaders, up to the cores; then augment: light, smaller images, or hosts with "
    "more cores; in evaluation, more evaluate.workers",
    "storage": "shards in a bucket with data.streaming and a compute.shard_cache_bytes that holds a node's share",
    "stragglers": "fewer, equal nodes; a larger batch_size lets each update weigh more",
    "all-reduce": "a larger batch_size, a faster network between nodes, or fewer nodes",
    "checkpoints": "a higher checkpoint_every, or a faster store for checkpoints",
    "start": "fewer nodes: the stage is short",
    "failures": "a lower checkpoint_every",
}
WORTH_SAYING = 0.01  # probabilities and shares below are not mentioned
NOTICEABLE = 0.03  # the same, of time for checkpoints and failures
SHARE_COLUMNS = ("compute", "input", "stor-\nage", "all-\nreduce", "rest", "sent by\na node", "read")
SMALL_PARTS = ("stragglers", "checkpoints", "start", "failures")


def print_estimate(estimate: RunEstimate, cluster: Cluster, settings: Settings) -> None:
    """Print one row a stage run, the sums, and what is worth setting."""
    console = (
        Console(highlight=False, markup=False) if sys.stdout.isatty() else Console(highlight=False, markup=False, width=WIDTH)
    )
    console.print(_stages(estimate, cluster))
    for line in (*_sums(estimate, cluster), *_remarks(estimate, cluster, settings)):
        console.print(line, soft_wrap=True)


def _stages(estimate: RunEstimate, cluster: Cluster) -> Table:
    title = f"Simulated on {cluster.nodes} × {cluster.gpus_per_node} workers; shares of each stage's time"
    grid = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for column in ("stage", "workers", "hours", "update\nms", "effi-\nciency", "limit", *SHARE_COLUMNS):
        grid.add_column(column, justify="left" if column in ("stage", "limit") else "right", no_wrap=column in ("stage", "limit"))
    for stage in estimate.stages:
        grid.add_row(*_estimate_row(stage))
    grid.add_section()
    sent, read = (sum(getattr(stage, key) for stage in estimate.stages) for key in ("exchanged", "fetched"))
    hours = three_digits(estimate.seconds / SECONDS_IN_AN_HOUR)
    efficiency = f"{estimate.efficiency:.1%}"
    grid.add_row("all", str(cluster.workers), hours, "", efficiency, "", *[""] * 5, size(sent), size(read))
    return grid


def _estimate_row(stage: StageEstimate) -> list[str]:
    """Cells of one stage run; the parts are shares of its time."""
    shares = {name: seconds / stage.seconds for name, seconds in stage.parts.items()}
    rest = sum(shares[name] for name in SMALL_PARTS)
    return [
        stage.name,
        str(stage.workers),
        three_digits(stage.seconds / SECONDS_IN_AN_HOUR),
        three_digits(1000 * stage.update_seconds),
        f"{stage.efficiency:.1%}",
        stage.limit,
        *(f"{shares[name]:.0%}" for name in ("compute", "input", "storage", "all-reduce")),
        f"{rest:.0%}",
        size(stage.exchanged),
        size(stage.fetched),
    ]


def _sums(estimate: RunEstimate, cluster: Cluster) -> Iterator[str]:
    costs, written = estimate.costs, sum(stage.written for stage in estimate.stages)
    yield (
        f"{three_digits(estimate.gpu_hours)} GPU-hours; cost {three_digits(costs['all'])}: GPUs {three_digits(costs['gpus'])}, "
        f"storage {three_digits(costs['storage'])}, requests {three_digits(costs['requests'])}"
    )
    kept = max((stage.kept_by_node for stage in estimate.stages), default=0.0)
    yield (
        f"Storage: images {size(estimate.dataset_bytes)}, checkpoints {size(estimate.checkpoint_bytes)} "
        f"({size(written)} written), shard cache of each node {size(kept)}; kept for a month: "
        f"{three_digits(estimate.storage_month)}"
    )
    if estimate.unknown:
        yield f"Not in the sums, as their images are unknown: {', '.join(estimate.unknown)}"


def _remarks(estimate: RunEstimate, cluster: Cluster, settings: Settings) -> Iterator[str]:
    for reach in estimate.reach:
        yield (
            f"{reach.name}: its batch divides among at most {reach.most} workers; {reach.fastest} finish first"
            if reach.most
            else f"{reach.name}: its batch does not divide among whole nodes"
        )
    for limit in dict.fromkeys(stage.limit for stage in estimate.stages if stage.limit in ADVICE):
        names = ", ".join(stage.name for stage in estimate.stages if stage.limit == limit)
        yield f"Limited by {limit}: {names}. What moves it: {ADVICE[limit]}."
    yield from _failure_remarks(estimate, settings)
    alone = sum(stage.seconds for stage in estimate.stages if stage.workers < cluster.workers)
    if alone > WORTH_SAYING * estimate.seconds:
        yield (
            f"{alone / estimate.seconds:.0%} of the time only some of the GPUs work (stage two has one process; evaluation "
            "evaluate.workers): run it elsewhere, or give the other nodes back first"
        )
    if settings.compute.workers != cluster.workers and estimate.reach:
        yield f"To run it like this: --set compute.workers={cluster.workers}"


def _failure_remarks(estimate: RunEstimate, settings: Settings) -> Iterator[str]:
    for stage in estimate.stages:
        if stage.given_up > WORTH_SAYING:
            yield (
                f"{stage.name}: {stage.failures:.1f} failures expected; compute.max_failures={settings.compute.max_failures} "
                f"gives up with probability {stage.given_up:.0%}"
            )
    worst = max(estimate.stages, key=_to_failures, default=None)
    if worst is not None and worst.best_checkpoint_every and _to_failures(worst) > NOTICEABLE * worst.seconds:
        yield (
            f"{worst.name}: checkpoints and failures take {_to_failures(worst) / worst.seconds:.0%}; least with about one "
            f"checkpoint in {worst.best_checkpoint_every:,} updates (checkpoint_every)"
        )


def _to_failures(stage: StageEstimate) -> float:
    """Seconds that go to failures and to being ready for them."""
    return stage.parts["failures"] + stage.parts["checkpoints"]


def size(count: float) -> str:
    """Bytes with a decimal prefix."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if count < 999.5:
            return f"{three_digits(count)} {unit}"
        count /= 1000
    return f"{three_digits(count)} PB"
