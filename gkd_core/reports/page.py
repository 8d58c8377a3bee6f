"""The comparison as one page of HTML that needs nothing else: styles, script and pictures are in it."""

from __future__ import annotations

import base64
import statistics
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined
from matplotlib import colormaps

from gkd_core.files import atomic_file
from gkd_core.reports.charts import LIGHT_BELOW, save_radar
from gkd_core.reports.comparability import protocol_words
from gkd_core.reports.comparison import COST_COLUMNS, Comparison, Entry, figure
from gkd_core.reports.findings import description, findings, headline
from gkd_core.reports.latencies import figure_of, lines_of
from gkd_core.reports.latency_chart import save_latency
from gkd_core.reports.rows import Cell, benchmarks_of, cells_of, class_means, paper_means_of, spread

TEMPLATE = "comparison.html.j2"
MEDIA = {".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg"}


class Tile(NamedTuple):
    """A cell of a table: its text, its value to sort by, a small line below, and the colours that show it."""

    text: str
    value: float | None
    note: str = ""
    background: str | None = None
    ink: str | None = None


class ClassTable(NamedTuple):
    """Classes by domains, and the classes that have no pixels in any of them."""

    cells: list[Cell]
    lines: list[tuple[str, list[Tile]]]
    absent: list[str]


def write_page(comparison: Comparison, path: Path, title: str = "Cross-domain comparison") -> None:
    """Write the page; one comparison gives the same bytes each time."""
    write_html(TEMPLATE, path, title=title, comparison=comparison, **_content(comparison))


def write_html(template: str, path: Path, **content: Any) -> None:
    """Write a page of one of our templates, whole or not at all; one content gives the same bytes each time."""
    # The template is ours, its content is not: names of runs, settings and pictures are escaped.
    environment = Environment(
        loader=PackageLoader("gkd_core.reports"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    text = environment.get_template(template).render(**content)
    with atomic_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _content(comparison: Comparison) -> dict[str, Any]:
    rows, entries = comparison.rows, comparison.entries
    columns = [column for column in COST_COLUMNS if any(entry.cost(column.metric) is not None for entry in entries)]
    data = sorted({name for run in comparison.runs for name in run.data})
    return {
        "findings": [*headline(rows), *findings(rows)],
        "descriptions": {entry.row.label: description(entry.row) for entry in entries},
        "seeds": sorted({seed for row in rows for seed in row.seeds}),
        "several_students": len({row.key.student for row in rows}) > 1,
        "several_fractions": len({row.key.label_fraction for row in rows}) > 1,
        "benchmarks": benchmarks_of(rows),
        "paper_means": paper_means_of(rows),
        "cells": cells_of(rows),
        "summary": [_summary(entry, benchmarks_of(rows), paper_means_of(rows)) for entry in entries],
        "matrix": _matrix(entries, cells_of(rows)),
        "classes": [(entry.row.label, _classes(entry)) for entry in entries],
        "radar": _radar(comparison),
        "latency": _latency(comparison),
        "cost_columns": columns,
        "costs": [(entry, [_plain(entry.cost(column.metric)) for column in columns]) for entry in entries],
        "settings": [(key, [entry.setting(key) for entry in entries]) for key in comparison.differing_settings()],
        "data": [(name, [_digests(entry, name) for entry in entries]) for name in data],
        "protocols": _protocols(comparison),
        "galleries": [(entry.row.label, _pictures(entry)) for entry in entries if any(run.pictures for run in entry.runs)],
    }


def _summary(entry: Entry, benchmarks: Sequence[str], paper_means: Sequence[str]) -> dict[str, Any]:
    row = entry.row
    worst = row.worst
    return {
        "entry": entry,
        "benchmarks": [_pooled(row.benchmark_targets(name)) for name in benchmarks],
        "paper_means": [_pooled(row.paper_mean(name)) for name in paper_means],
        "targets": _pooled(row.targets),
        "in_domain": _pooled(row.in_domain),
        "worst": _pooled(row.cells[worst])._replace(note=" ".join(worst)) if worst else Tile("–", None),
        "gap": _pooled(row.gaps),
    }


def _pooled(values: Sequence[float]) -> Tile:
    return Tile(spread(values), statistics.fmean(values) if values else None)


def _plain(value: float | None) -> Tile:
    return Tile(figure(value), value)


def _matrix(entries: Sequence[Entry], cells: Sequence[Cell]) -> list[tuple[str, list[Tile]]]:
    """A line a row: the two means, then each cell."""
    columns = [[entry.row.in_domain, entry.row.targets, *(entry.row.cells.get(cell, ()) for cell in cells)] for entry in entries]
    highest = max((statistics.fmean(values) for line in columns for values in line if values), default=0.0)
    lines = [[_tile(values, highest) for values in line] for line in columns]
    return [(entry.row.label, line) for entry, line in zip(entries, lines, strict=True)]


def _classes(entry: Entry) -> list[ClassTable]:
    """The row's classes by domains, one table for each set of classes: benchmarks of one taxonomy share it."""
    means = class_means(entry.scores).get(entry.row.key, {})
    cells: dict[tuple[str, ...], dict[Cell, None]] = {}
    for score in entry.scores:
        cells.setdefault(tuple(score.class_iou), {})[score.benchmark, score.domain] = None
    return [_class_table(list(own), {name: means[name] for name in names}) for names, own in cells.items()]


def _class_table(cells: list[Cell], means: Mapping[str, Mapping[Cell, float]]) -> ClassTable:
    lines = []
    for name, found in means.items():
        tiles = [_tile((found[cell],), 100.0) if cell in found else Tile("–", None) for cell in cells]
        lines.append((name, tiles))
    seen = [line for line in lines if any(tile.value is not None for tile in line[1])]
    absent = [name for name, tiles in lines if all(tile.value is None for tile in tiles)]
    return ClassTable(cells, seen, absent)


def _tile(values: Sequence[float], highest: float) -> Tile:
    """Mean and deviation, on a colour scale from 0 to the highest value."""
    if not values:
        return Tile("–", None)
    value = statistics.fmean(values)
    share = value / highest if highest else 0.0
    red, green, blue = (round(255 * part) for part in colormaps["viridis"](share)[:3])
    ink = "#fff" if share < LIGHT_BELOW else "#000"
    note = f"± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return Tile(f"{value:.1f}", value, note, f"#{red:02x}{green:02x}{blue:02x}", ink)


def _radar(comparison: Comparison) -> str | None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "radar.png"
        return embedded(path) if save_radar(comparison.rows, path) else None


def _latency(comparison: Comparison) -> tuple[str | None, list[str]] | None:
    """The figure, where a row is in it, and what is to be known of it; None where nothing was measured."""
    found = figure_of(comparison)
    if found is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "latency.png"
        drawn = embedded(path) if save_latency(found, path) else None
    return drawn, lines_of(found)


def _protocols(comparison: Comparison) -> list[tuple[str, list[str]]]:
    """Each way of measuring, and where it was used."""
    found: dict[str, dict[str, None]] = {}
    for score in comparison.scores:
        place = f"{score.benchmark} {score.domain} ({score.dataset}, {score.images} images)"
        found.setdefault(protocol_words(score.protocol), {})[place] = None
    return [(words, list(places)) for words, places in found.items()]


def _digests(entry: Entry, name: str) -> str:
    return " / ".join(dict.fromkeys(run.data[name] for run in entry.runs if name in run.data)) or "–"


def _pictures(entry: Entry) -> list[tuple[str, list[tuple[str, str]]]]:
    """Captioned pictures of the row's first run that has any, by kind: the other seeds' would show the same images."""
    run = next(run for run in entry.runs if run.pictures)
    kinds: dict[str, list[tuple[str, str]]] = {}
    for picture in run.pictures:
        caption = picture.title if picture.domain in picture.title else f"{picture.title} · {picture.domain}"
        kinds.setdefault(picture.kind, []).append((caption, embedded(picture.path)))
    return list(kinds.items())


def embedded(path: Path) -> str:
    """A picture as an address that holds it."""
    return f"data:{MEDIA[path.suffix.lower()]};base64,{base64.b64encode(path.read_bytes()).decode('ascii')}"
