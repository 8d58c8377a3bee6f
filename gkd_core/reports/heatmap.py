"""The matrix as a picture."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from gkd_core.files import atomic_file
from gkd_core.reports.rows import Row

LIGHT_BELOW = 0.55  # share of the colour scale below which text on a cell must be light


def save_heatmap(rows: Sequence[Row], path: Path) -> None:
    """Methods by domains, each cell its mIoU in percent; the columns of means stand apart on the left."""
    cells = list(dict.fromkeys(cell for row in rows for cell in row.cells))
    columns = ["in-domain\nmean", "targets\nmean", *(f"{benchmark}\n{domain}" for benchmark, domain in cells)]
    values = [[_mean(row.in_domain), _mean(row.targets)] + [_mean(row.cells.get(cell, ())) for cell in cells] for row in rows]
    longest = max(len(_label(row)) for row in rows)
    figure = Figure(figsize=(max(2.2, 0.9 + 0.075 * longest) + 0.95 * len(columns), 1.5 + 0.5 * len(rows)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    highest = max((v for line in values for v in line if v == v), default=0.0) or 1.0
    image = axes.imshow(values, cmap="viridis", aspect="auto", vmin=0, vmax=highest)
    axes.set_xticks(range(len(columns)), columns, fontsize=8)
    axes.set_yticks(range(len(rows)), [_label(row) for row in rows], fontsize=9)
    axes.tick_params(length=0, labeltop=True, labelbottom=False)
    axes.axvline(1.5, color="white", linewidth=4)
    for row_index, line in enumerate(values):
        for column, value in enumerate(line):
            if value == value:
                dark = value / highest < LIGHT_BELOW
                axes.text(
                    column, row_index, f"{value:.1f}", ha="center", va="center", fontsize=9, color="white" if dark else "black"
                )
    figure.colorbar(image, ax=axes, label="mIoU, %", pad=0.01)
    axes.spines[:].set_visible(False)
    with atomic_file(path) as temporary:
        figure.savefig(temporary, dpi=120, format="png", metadata={"Software": None})


def _mean(values: Sequence[float]) -> float:
    """nan where there are none: such a cell stays empty."""
    return statistics.fmean(values) if values else float("nan")


def _label(row: Row) -> str:
    return f"{row.label} ({len(row.seeds)} seeds)" if len(row.seeds) > 1 else row.label
