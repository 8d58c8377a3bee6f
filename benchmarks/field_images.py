"""How well distances from what a student knows rank domains by its mIoU: a table and a figure, of the students of a finished run.

Each student is shown the images of every domain that it was measured on; the median of their distances is held against the mIoU.
Nothing is chosen by what comes out. Example, after `make demo` (its workspace is named at its end):

    python benchmarks/field_images.py artifacts/workspaces/NAME --output ranking
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, NamedTuple

import torch
import typer
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from scipy.stats import spearmanr

from gkd_core.data.files.blobs import DataFile
from gkd_core.models.segmentor import load_segmentor
from gkd_core.paths import PARAMS, SCORES
from gkd_core.predict.known import Known
from gkd_core.predict.pictures import picture_in
from gkd_core.predict.student import Segmentor
from gkd_core.records import Score, ScoreTable
from gkd_core.settings import load_settings
from gkd_core.stages import Recipe
from gkd_core.stages.bundle import describe
from gkd_core.stages.facts import EVALUATE, LEARN_TASK
from gkd_core.stages.known import known_images, spaced
from gkd_core.stages.machine import device_of
from gkd_core.training.progress import progress

COLORS, MARKERS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"), "osD^vP"


class Line(NamedTuple):
    """One domain of one student: its mIoU in percent, and medians of its images' distances."""

    source: str
    domain: str
    in_domain: bool
    images: int
    miou: float
    from_source: float
    from_nearest: float


def main(
    workspace: Annotated[Path, typer.Argument(help="Folder of a finished run, with params.yaml and artifacts.")],
    output: Annotated[Path, typer.Option(help="Folder for ranking.md and ranking.png.")] = Path("ranking"),
    images: Annotated[int, typer.Option(min=2, help="Images of each part, and of each domain, at most.")] = 1000,
) -> None:
    """Measure every student of a run."""
    recipe = Recipe.of(load_settings(workspace / PARAMS))
    torch.set_num_threads(recipe.settings.compute.threads)
    lines = [line for source in recipe.sources for line in _lines(recipe, workspace, source, images)]
    text = "\n".join(_table(lines)) + "\n"
    output.mkdir(parents=True, exist_ok=True)
    (output / "ranking.md").write_text(text, encoding="utf-8")
    _draw(lines, output / "ranking.png")
    print(text)


def _lines(recipe: Recipe, workspace: Path, source: str, most: int) -> list[Line]:
    folder = workspace / LEARN_TASK.output(source)
    network = load_segmentor(folder)
    student = Segmentor(describe(folder, recipe, workspace), network, torch.device(device_of(recipe.settings)))
    known = known_images(student, recipe, workspace, most, lambda count: progress(f"{source}: known", count, unit="images"))
    scores = {score.dataset: score for score in ScoreTable.read(workspace / EVALUATE.output(source) / SCORES).scores}
    return [_line(student, known, score, spaced(_files(recipe, workspace, score), most)) for score in scores.values()]


def _files(recipe: Recipe, workspace: Path, score: Score) -> Sequence[DataFile]:
    return recipe.origin(workspace).images(recipe.catalog.domain(score.dataset))


def _line(student: Segmentor, known: Known, score: Score, files: Sequence[DataFile]) -> Line:
    rows = torch.cat([student.pooled(picture_in(file)) for file in files])
    from_source = statistics.median(distance.value for distance in known.parts["source"].distances(rows))
    nearest = statistics.median(known.nearest(rows))
    return Line(score.source, score.domain, score.in_domain, len(files), score.miou, from_source, nearest)


def _table(lines: Sequence[Line]) -> list[str]:
    """Domains by mIoU, and how the ranks agree: -1 where the farthest domain is always the worst."""
    head = ["| source | domain | images | mIoU, % | distance from the source | from the nearest part |"]
    head.append("|---|---|---:|---:|---:|---:|")
    ranked = sorted(lines, key=lambda line: (line.source, -line.miou))
    rows = [
        f"| {line.source} | {line.domain} | {line.images} | {line.miou:.1f} | {line.from_source:.2f} | {line.from_nearest:.2f} |"
        for line in ranked
    ]
    ranks = ["", "| source | domains | Spearman's ρ, source | Spearman's ρ, nearest |", "|---|---:|---:|---:|"]
    for source in dict.fromkeys(line.source for line in ranked):
        own = [line for line in ranked if line.source == source]
        ranks.append(f"| {source} | {len(own)} | {_rho(own, 'from_source')} | {_rho(own, 'from_nearest')} |")
    return [*head, *rows, *ranks]


def _rho(lines: Sequence[Line], distance: str) -> str:
    """The rank correlation of mIoU and distance; of fewer than three domains it says nothing."""
    if len(lines) < 3:
        return "–"
    found = spearmanr([line.miou for line in lines], [getattr(line, distance) for line in lines])
    return f"{float(found.statistic):+.2f}"


def _draw(lines: Sequence[Line], path: Path) -> None:
    figure = Figure(figsize=(7.4, 4.6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for index, source in enumerate(dict.fromkeys(line.source for line in lines)):
        own = [line for line in lines if line.source == source]
        color, marker = COLORS[index % len(COLORS)], MARKERS[index % len(MARKERS)]
        axes.scatter([line.from_source for line in own], [line.miou for line in own], color=color, marker=marker, label=source)
        for line in own:
            axes.annotate(line.domain, (line.from_source, line.miou), xytext=(4, 3), textcoords="offset points", fontsize=8)
    axes.set_xscale("log")
    axes.set_xlabel("median distance from the source (1: its held-out images)")
    axes.set_ylabel("mIoU, %")
    axes.legend(frameon=False, title="source", fontsize=9)
    figure.savefig(path, dpi=120, metadata={"Software": None})


if __name__ == "__main__":
    typer.run(main)
