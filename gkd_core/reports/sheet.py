"""Images in rows and columns with headings, captions and a legend: one sheet, one PNG."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from matplotlib.patheffects import withStroke
from PIL import Image

from gkd_core.files import atomic_file

DPI = 100
EDGE, GAP = 10, 4  # pixels around everything, and between cells
TITLE_LINE, LINE, SMALL_LINE = 21, 18, 14  # pixels of a line of the title, of captions and headings, of the note
LEGEND_LINE, LEGEND_COLUMN = 19, 130
LEAST_WIDTH = 640  # room for titles and captions
PHOTOGRAPH_BITS = 0b11111100
OUTLINE = withStroke(linewidth=2, foreground="black")  # for letters on any image
TITLE_LETTER, SMALL_LETTER = 8.8, 5.2  # pixels that a letter takes, on the safe side


@dataclass(frozen=True)
class Box:
    """A frame on a cell: left, top, width and height in pixels of its array, a colour, and a short text beside it."""

    left: float
    top: float
    width: float
    height: float
    color: str
    label: str = ""


@dataclass(frozen=True)
class Cell:
    """One image, uint8 (h, w, 3).

    `exact` is for colours that mean something: they are never mixed with their neighbours.
    """

    pixels: np.ndarray
    exact: bool
    caption: str = ""
    boxes: tuple[Box, ...] = ()

    def size(self, longest: int) -> tuple[int, int]:
        """Width and height in pixels at which it is shown, its longest edge being given."""
        height, width = self.pixels.shape[:2]
        scale = longest / max(height, width)
        return max(1, round(width * scale)), max(1, round(height * scale))


@dataclass(frozen=True)
class Row:
    """Cells side by side, below a caption."""

    caption: str
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Sheet:
    """What is drawn: `columns` are headings, `note` says below the rows what they show."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    note: str
    legend: tuple[Patch, ...] = ()


def save_sheet(sheet: Sheet, path: Path, longest: int) -> None:
    """Write a PNG in which the longest edge of every cell is `longest` pixels. The same sheet gives the same bytes."""
    _Drawing(sheet, longest).save(path)


class _Drawing:
    """Places everything from above to below; positions are pixels from the upper left corner."""

    def __init__(self, sheet: Sheet, longest: int) -> None:
        self._sheet, self._longest = sheet, longest
        self._widths = [max(row.cells[index].size(longest)[0] for row in sheet.rows) for index in range(len(sheet.columns))]
        self.width = max(LEAST_WIDTH, 2 * EDGE + sum(self._widths) + GAP * (len(self._widths) - 1))
        inner = self.width - 2 * EDGE
        self._title = textwrap.wrap(sheet.title, int(inner / TITLE_LETTER))
        self._note = textwrap.wrap(sheet.note, int(inner / SMALL_LETTER))
        self._legend_columns = max(1, inner // LEGEND_COLUMN)
        legend = LEGEND_LINE * -(-len(sheet.legend) // self._legend_columns)
        rows = sum(self._row_height(row) for row in sheet.rows)
        self.height = 2 * EDGE + TITLE_LINE * len(self._title) + LINE + rows + legend + SMALL_LINE * len(self._note) + GAP
        self._figure = Figure(figsize=(self.width / DPI, self.height / DPI), dpi=DPI, facecolor="white")
        self._canvas = FigureCanvasAgg(self._figure)
        self._photographs: list[tuple[int, int, int, int]] = []

    def save(self, path: Path) -> None:
        """Draw it all and write the file."""
        top = self._lines(self._title, EDGE, TITLE_LINE, 11, weight="bold")
        for heading, left in zip(self._sheet.columns, self._lefts(), strict=True):
            self._text(heading, left, top, LINE, 8.5, color="#444444")
        top += LINE
        for row in self._sheet.rows:
            self._row(row, top)
            top += self._row_height(row)
        if self._sheet.legend:
            self._draw_legend(top)
            top += LEGEND_LINE * -(-len(self._sheet.legend) // self._legend_columns)
        self._lines(self._note, top + GAP, SMALL_LINE, 7.5, color="#555555")
        self._canvas.draw()
        pixels = np.asarray(self._canvas.buffer_rgba())[..., :3].copy()
        for left, top, width, height in self._photographs:
            # No eye sees the lowest bits of a photograph, and they are half of what a PNG of it takes.
            pixels[top : top + height, left : left + width] &= PHOTOGRAPH_BITS
        with atomic_file(path) as temporary:
            Image.fromarray(pixels).save(temporary, format="png", optimize=True)

    def _row(self, row: Row, top: int) -> None:
        self._text(row.caption, EDGE, top, LINE, 8.5, weight="bold")
        for cell, left in zip(row.cells, self._lefts(), strict=True):
            width, height = cell.size(self._longest)
            axes = self._figure.add_axes(self._place(left, top + LINE, width, height))
            if not cell.exact:
                self._photographs.append((left, top + LINE, width, height))
            # Pixels of a small image stay squares, as labels and maps do; larger images are averaged.
            grows = width >= cell.pixels.shape[1]
            axes.imshow(cell.pixels, interpolation="nearest" if cell.exact or grows else "antialiased", aspect="auto")
            axes.set_axis_off()
            for box in cell.boxes:
                axes.add_patch(
                    Rectangle((box.left - 0.5, box.top - 0.5), box.width, box.height, fill=False, edgecolor=box.color, lw=1.6)
                )
                axes.text(
                    box.left + box.width, box.top + box.height / 2 - 0.5, box.label,
                    color=box.color, fontsize=9, fontweight="bold", va="center", path_effects=[OUTLINE],
                )  # fmt: skip
            if cell.caption:
                self._text(cell.caption, left, top + LINE + height, LINE, 8)

    def _row_height(self, row: Row) -> int:
        captions = LINE if any(cell.caption for cell in row.cells) else 0
        return LINE + max(cell.size(self._longest)[1] for cell in row.cells) + captions + GAP

    def _lefts(self) -> list[int]:
        return [EDGE + sum(self._widths[:index]) + GAP * index for index in range(len(self._widths))]

    def _draw_legend(self, top: int) -> None:
        self._figure.legend(
            handles=list(self._sheet.legend), loc="upper left", bbox_to_anchor=(EDGE / self.width, 1 - top / self.height),
            ncols=self._legend_columns, fontsize=8, frameon=False, borderpad=0, borderaxespad=0.2, handlelength=1.4,
            columnspacing=1.0,
        )  # fmt: skip

    def _lines(self, lines: Sequence[str], top: int, line: int, size: float, **style: Any) -> int:
        for index, words in enumerate(lines):
            self._text(words, EDGE, top + index * line, line, size, **style)
        return top + len(lines) * line

    def _text(self, words: str, left: int, top: int, line: int, size: float, **style: Any) -> None:
        self._figure.text(left / self.width, 1 - (top + line / 2) / self.height, words, fontsize=size, va="center", **style)

    def _place(self, left: int, top: int, width: int, height: int) -> tuple[float, float, float, float]:
        """The rectangle in matplotlib's terms: shares of the figure, from its lower left corner."""
        return left / self.width, 1 - (top + height) / self.height, width / self.width, height / self.height
