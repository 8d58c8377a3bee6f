"""Images beside their coloured labels, as a picture to look at."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure, SubFigure
from matplotlib.patches import Patch

from gkd_core.data.catalog.load import Domain
from gkd_core.data.catalog.taxonomy import Taxonomy
from gkd_core.data.colors import class_patches, color_label
from gkd_core.data.files.origin import Origin
from gkd_core.data.files.reading import read_image, read_pair
from gkd_core.files import atomic_file

COLUMN, TITLE, LEGEND_LINE = 2.3, 0.3, 0.2  # inches
LEGEND_COLUMN = 1.35  # inches
LEAST_COLUMNS = 2  # room for a title and a legend
EDGE = 0.005  # of the width
DPI = 100


@dataclass(frozen=True)
class Sample:
    """Images of a `dataset/split`, each with its train ids where there are labels."""

    domain: str
    taxonomy: Taxonomy | None
    images: tuple[np.ndarray, ...]
    labels: tuple[np.ndarray, ...]


def draw_sample(domain: Domain, origin: Origin, count: int, seed: int) -> Sample:
    """`count` images of a split, or all if there are fewer: a choice that depends on `seed` and the split alone.

    Raises:
        DataError: the split is incomplete, or one of the files chosen cannot be read.
    """
    numbers = np.random.default_rng([seed, zlib.crc32(domain.reference.encode())])
    if not domain.is_labelled:
        files = origin.images(domain)
        return Sample(
            domain.reference, None, tuple(read_image(files[index]) for index in _choose(numbers, len(files), count)), ()
        )
    pairs, encoding = origin.pairs(domain), origin.encoding(domain)
    read = [read_pair(pairs[index], encoding) for index in _choose(numbers, len(pairs), count)]
    images, labels = zip(*read, strict=True)
    return Sample(domain.reference, domain.taxonomy, images, labels)


def save_samples(samples: Sequence[Sample], path: Path) -> None:
    """Write the samples as a PNG: for each split its images above their labels, and a legend of the classes that occur."""
    columns = max(LEAST_COLUMNS, *(len(sample.images) for sample in samples))
    legends = [_legend(sample) for sample in samples]
    heights = [
        TITLE + _rows(sample) * _row_height(sample) + _legend_height(legend, columns)
        for sample, legend in zip(samples, legends, strict=True)
    ]
    figure = Figure(figsize=(COLUMN * columns, sum(heights)))
    FigureCanvasAgg(figure)
    parts: np.ndarray = figure.subfigures(len(samples), 1, squeeze=False, height_ratios=heights)
    for part, sample, legend, height in zip(parts[:, 0], samples, legends, heights, strict=True):
        _draw(part, sample, legend, columns, height)
    with atomic_file(path) as temporary:
        figure.savefig(temporary, dpi=DPI, format="png", metadata={"Software": None}, pil_kwargs={"optimize": True})


def _draw(part: SubFigure, sample: Sample, legend: list[Patch], columns: int, height: float) -> None:
    """Draw one split into its part of the figure, which is `height` inches high."""
    top, bottom = 1 - TITLE / height, _legend_height(legend, columns) / height
    grid = part.add_gridspec(_rows(sample), columns, left=EDGE, right=1 - EDGE, bottom=bottom, top=top, wspace=0.02, hspace=0.02)
    part.text(EDGE, (1 + top) / 2, sample.domain, fontsize=11, fontweight="bold", va="center")
    for column, image in enumerate(sample.images):
        shown = [image, color_label(sample.labels[column], sample.taxonomy)] if sample.taxonomy else [image]
        for row, pixels in enumerate(shown):
            axes = part.add_subplot(grid[row, column])
            # Colours of labels must not be mixed.
            axes.imshow(pixels, interpolation="antialiased" if row == 0 else "nearest")
            axes.set_axis_off()
    if legend:
        part.legend(
            handles=legend, loc="lower left", bbox_to_anchor=(0.0, 0.0), ncols=_per_line(columns), fontsize=8, frameon=False,
            borderpad=0, handlelength=1.4, columnspacing=1.0,
        )  # fmt: skip


def _legend(sample: Sample) -> list[Patch]:
    return [] if sample.taxonomy is None else class_patches(sample.labels, sample.taxonomy)


def _rows(sample: Sample) -> int:
    return 2 if sample.labels else 1


def _row_height(sample: Sample) -> float:
    """Inches that a row of images takes: as high as its highest one, within reason."""
    return COLUMN * min(2.0, max(image.shape[0] / image.shape[1] for image in sample.images))


def _legend_height(legend: Sequence[Patch], columns: int) -> float:
    """Inches that a legend takes, with some space above it."""
    return LEGEND_LINE * -(-len(legend) // _per_line(columns)) + 0.08


def _per_line(columns: int) -> int:
    return int(COLUMN * columns / LEGEND_COLUMN)


def _choose(numbers: np.random.Generator, available: int, count: int) -> list[int]:
    """One of each of `count` equal parts, as neighbouring frames of a drive look alike."""
    parts = np.array_split(np.arange(available), min(available, count))
    return [int(numbers.choice(part)) for part in parts]
