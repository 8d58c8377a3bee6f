"""The figure of what students score and take: mean mIoU over targets against latency, one point a student."""

from __future__ import annotations

import statistics
from itertools import cycle
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from gkd_core.files import atomic_file
from gkd_core.predict.latency import three_digits
from gkd_core.reports.charts import COLORS, MARKERS
from gkd_core.reports.latencies import Figure

ROOM = 1.6  # left and right of the outermost, as a factor
LINES = ("--", ":", "-.")


def save_latency(figure: Figure, path: Path) -> bool:
    """Draw it; gives whether there was a point to draw. Latency is on a logarithmic axis; better is up and left."""
    if not figure.points:
        return False
    canvas = Canvas(figsize=(8.2, 5.4), layout="constrained")
    FigureCanvasAgg(canvas)
    axes = canvas.subplots()
    # Colours come round later than markers, so that neighbours in the legend differ in both.
    for point, color, marker in zip(figure.points, cycle(COLORS), cycle(MARKERS[:-1]), strict=False):
        mean = statistics.fmean(point.targets)
        deviation = statistics.stdev(point.targets) if len(point.targets) > 1 else None
        axes.errorbar(
            point.milliseconds, mean, yerr=deviation, color=color, marker=marker, markersize=8, capsize=3, linestyle="none",
            label=f"{point.label}  {mean:.1f} at {three_digits(point.milliseconds)} ms",
        )  # fmt: skip
    for (words, milliseconds), line in zip(figure.beside, cycle(LINES), strict=False):
        axes.axvline(milliseconds, color="#555555", linestyle=line, label=f"{words}: {three_digits(milliseconds)} ms")
    times = [*(point.milliseconds for point in figure.points), *(milliseconds for _, milliseconds in figure.beside)]
    axes.set_xscale("log")
    axes.set_xlim(min(times) / ROOM, max(times) * ROOM)
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("latency, ms (median of a pass)")
    axes.set_ylabel("mIoU, %: mean over targets")
    axes.grid(color="#dddddd", linewidth=0.8)
    axes.spines[["top", "right"]].set_visible(False)
    canvas.legend(loc="outside lower left", frameon=False, fontsize=9, alignment="left")
    with atomic_file(path) as temporary:
        canvas.savefig(temporary, dpi=120, format="png", bbox_inches="tight", metadata={"Software": None})
    return True
