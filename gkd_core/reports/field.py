"""The page on field images: how far they are from what a student knows, beside known images, and which are furthest."""

from __future__ import annotations

import csv
import heapq
import statistics
import tempfile
from array import array
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from gkd_core.files import atomic_file
from gkd_core.predict.known import Distance, Known, Part, PartName
from gkd_core.predict.manifest import Bundle
from gkd_core.predict.outputs import distance_columns
from gkd_core.reports.charts import COLORS
from gkd_core.reports.page import embedded, write_html

TEMPLATE = "field.html.j2"
FURTHEST = 20
FAR = 95.0  # percentile of known images from which on an image counts as far
BINS = 30


class Line(NamedTuple):
    """An image as the table of predictions has it."""

    image: str
    distances: tuple[Distance, ...]


def write_field_report(table: Path, bundle: Bundle, known: Known, path: Path) -> None:
    """Write the page on the images of a table.

    Args:
        table: predictions.csv of a student with these statistics, of one image at least.
    """
    furthest = heapq.nlargest(FURTHEST, _lines(table, list(known.parts)), key=lambda line: line.distances[0].value)
    values = distances_of(table, list(known.parts))
    count = len(values["source"])
    write_html(
        TEMPLATE,
        path,
        title="Are these images like what it knows?",
        count=count,
        student=f"{bundle.model.encoder.arch} from {bundle.model.source}",
        findings=[_finding(part, values[name]) for name, part in known.parts.items()],
        figure=_figure(known, values),
        furthest=furthest,
        parts=[part.record for part in known.parts.values()],
    )


def distances_of(table: Path, parts: Sequence[PartName]) -> Mapping[PartName, Sequence[float]]:
    """The distances of a table's images from each part, in the table's order: eight bytes an image."""
    found: dict[PartName, array[float]] = {name: array("d") for name in parts}
    for line in _lines(table, parts):
        for name, distance in zip(parts, line.distances, strict=True):
            found[name].append(distance.value)
    return found


def _lines(table: Path, parts: Sequence[PartName]) -> Iterator[Line]:
    with table.open(newline="", encoding="utf-8") as stream:
        for row in csv.DictReader(stream):
            yield Line(row["image"], tuple(Distance(*(float(row[key]) for key in distance_columns(part))) for part in parts))


def _finding(part: Part, values: Sequence[float]) -> str:
    record = part.record
    limit = float(np.percentile(part.own, FAR))
    far = sum(value > limit for value in values)
    return (
        f"From {record.images} ({record.name}): median distance {statistics.median(values):.2f}; {far} of {len(values)} images "
        f"({far / len(values):.0%}) are farther than {FAR:g} % of the images of {record.held_out}"
    )


def _figure(known: Known, values: Mapping[PartName, Sequence[float]]) -> str:
    """Shares of images by distance, a panel a part, as an embedded PNG."""
    figure = Figure(figsize=(8.2, 2.7 * len(known.parts)), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(len(known.parts), 1, squeeze=False)[:, 0]
    for axes, (name, part) in zip(panels, known.parts.items(), strict=True):
        _panel(axes, part, values[name])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "distances.png"
        with atomic_file(path) as temporary:
            figure.savefig(temporary, dpi=120, format="png", metadata={"Software": None})
        return embedded(path)


def _panel(axes: Axes, part: Part, values: Sequence[float]) -> None:
    own = part.own
    least = max(min(min(own), min(values)), 1e-3)  # distances are drawn by their ratio, and one may be 0
    edges = np.geomspace(least, max(max(own), max(values), least * 1.01) * 1.001, BINS + 1)
    drawn = ((f"{part.record.held_out} ({len(own)})", own, COLORS[0]), (f"these images ({len(values)})", values, COLORS[1]))
    for label, each, color in drawn:
        clipped = np.clip(np.asarray(each), edges[0], edges[-1])
        axes.hist(clipped, bins=edges.tolist(), weights=np.full(len(each), 1 / len(each)), color=color, alpha=0.55, label=label)
    axes.axvline(1, color="#555555", linewidth=1, linestyle=":")
    axes.set_xscale("log")
    ticks = [tick for tick in (0.1, 0.25, 0.5, 1, 2, 4, 8, 16, 32, 64, 128) if edges[0] <= tick <= edges[-1]] or [1.0]
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
    axes.set_xlabel(f"distance from {part.record.images} ({part.record.name})")
    axes.set_ylabel("share of images")
    axes.legend(frameon=False, fontsize=9)
