"""The matrix as pictures: a heatmap of all its cells, and a radar with one polygon a row, in which a dent shows a weak domain."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from gkd_core.files import atomic_file
from gkd_core.reports.rows import IN_DOMAIN, Row, cells_of

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


FEWEST_AXES = 3  # fewer span no polygon
MOST_ROWS = 8  # more polygons cannot be told apart
# Okabe and Ito's colours, which people with any colour vision can tell apart; black last, for the darkest needs no help.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C6D31", "#000000")
MARKERS = "osD^vPX*"
UPRIGHT = 0.2  # sine of the angle below which a name stands above or below the circle, not beside it
STEP = 20  # between rings, in percent


def radar_axes(rows: Sequence[Row]) -> list[tuple[str, str]]:
    """The axes: target domains that every row has."""
    return [cell for cell in cells_of(rows) if cell[1] != IN_DOMAIN and all(cell in row.cells for row in rows)]


def save_radar(rows: Sequence[Row], path: Path) -> bool:
    """Draw it for the best rows, by mean over targets, at most eight; gives whether there were axes enough for a polygon."""
    best = sorted((row for row in rows if row.targets), key=lambda row: -statistics.fmean(row.targets))[:MOST_ROWS]
    axes = radar_axes(best)
    if len(axes) < FEWEST_AXES:
        return False
    figure = Figure(figsize=(8.2, 5.4), layout="constrained")
    FigureCanvasAgg(figure)
    plot = figure.add_subplot(projection="polar")
    plot.set_theta_zero_location("N")  # type: ignore[attr-defined]
    plot.set_theta_direction(-1)  # type: ignore[attr-defined]
    angles = [2 * math.pi * index / len(axes) for index in range(len(axes))]
    highest = 0.0
    for row, color, marker in zip(best, COLORS, MARKERS, strict=False):
        values = [statistics.fmean(row.cells[cell]) for cell in axes]
        highest = max(highest, *values)
        label = f"{row.label}  {statistics.fmean(row.targets):.1f}"
        plot.plot(
            [*angles, angles[0]], [*values, values[0]], color=color, marker=marker, markersize=4, linewidth=1.8, label=label
        )
        plot.fill(angles, values, color=color, alpha=0.07)
    top = max(STEP, STEP * math.ceil(highest / STEP))
    plot.set_ylim(0, top)
    plot.set_yticks(range(STEP, top + 1, STEP), [str(ring) for ring in range(STEP, top + 1, STEP)], fontsize=8, color="#555555")
    plot.set_xticks(angles, [f"{benchmark}\n{domain}" for benchmark, domain in axes], fontsize=9)
    for angle, text in zip(angles, plot.get_xticklabels(), strict=True):
        text.set_horizontalalignment("center" if abs(math.sin(angle)) < UPRIGHT else "left" if math.sin(angle) > 0 else "right")
    plot.grid(color="#cccccc", linewidth=0.8)
    plot.spines["polar"].set_color("#999999")
    figure.legend(
        loc="outside right upper", frameon=False, fontsize=9, title="mIoU, %: target domains\n(beside the name: their mean)",
        title_fontsize=9, alignment="left",
    )  # fmt: skip
    with atomic_file(path) as temporary:
        figure.savefig(temporary, dpi=120, format="png", bbox_inches="tight", metadata={"Software": None})
    return True
