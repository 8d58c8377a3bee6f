"""The work of a run in the terminal."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from gkd_core.planning.work import Machine, StageWork

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
        console.print(f"{UNKNOWN}: the images are not at hand and the catalog states no number or size; not in the sum.")
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
