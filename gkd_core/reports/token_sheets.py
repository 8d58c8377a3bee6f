"""Tokens of teacher and student over the image: their principal components, and the attention between them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from matplotlib import colormaps
from torch import Tensor

from gkd_core.evaluate.features import colors_of, linear_cka, principal_scores, turned
from gkd_core.reports.panels import shown
from gkd_core.reports.sheet import Box, Cell, Row, Sheet

Grid = tuple[int, int]
OWN_PLACE = "#00e5ff"
COVER = 0.9  # of the image, below the largest weight
GREY_STEP = 16  # levels of grey below a map: coarse enough for a small file
VIEW = "Views are the middle of the image at the size of stage 1b's crops, the first image chosen of each domain."


@dataclass(frozen=True)
class TokenView:
    """One image as both encoders of a distillation see it.

    Attributes:
        name: of the image.
        image: (3, H, W) in 0..1.
        grid: rows and columns of the patch tokens.
        teacher: patch tokens (N, Ct), on the student's grid.
        student: patch tokens (N, Cs).
    """

    name: str
    image: Tensor
    grid: Grid
    teacher: Tensor
    student: Tensor


def domain_cka(views: Sequence[TokenView]) -> float | None:
    """Linear CKA of teacher and student over all tokens of some views."""
    return linear_cka(torch.cat([view.teacher for view in views]), torch.cat([view.student for view in views]))


def feature_sheet(title: str, domains: Mapping[str, Sequence[TokenView]]) -> Sheet:
    """The first view of each domain, with the principal components of both encoders over all views of all domains."""
    views = [view for each in domains.values() for view in each]
    teacher, teacher_share = principal_scores(torch.cat([view.teacher for view in views]))
    student, student_share = principal_scores(torch.cat([view.student for view in views]))
    sizes = [len(view.teacher) for view in views]
    parts = [colors_of(scores).split(sizes) for scores in (teacher, turned(student, teacher))]
    painted = {id(view): colors for view, *colors in zip(views, *parts, strict=True)}
    rows = []
    for domain, each in domains.items():
        cka = domain_cka(each)
        said = "–" if cka is None else f"{cka:.2f}"
        cells = [Cell(_over(view_colors, each[0]), exact=True) for view_colors in painted[id(each[0])]]
        rows.append(Row(f"{domain}: linear CKA {said}", (Cell(shown(each[0].image), exact=False), *cells)))
    note = (
        f"First three principal components as red, green, blue, of each encoder's own patch tokens over all {len(views)} images "
        f"chosen ({teacher_share:.0%} of the teacher's variance, {student_share:.0%} of the student's); the student's three are "
        "turned as one, by a rotation or reflection, to resemble the teacher's. Equal colours in a column are alike for that "
        "encoder. Linear CKA: 1 the same up to rotation and scale, 0 nothing in common (unbiased, over all images chosen of the "
        f"domain). {VIEW}"
    )
    return Sheet(title, ("image", "teacher", "student"), tuple(rows), note)


def attention_sheet(
    title: str, domains: Mapping[str, tuple[TokenView, Tensor]], places: Sequence[int], matching: Mapping[str, float]
) -> Sheet:
    """One view of each domain, with the attention of some of its tokens.

    Args:
        domains: a view and its attention (N, N), by `dataset/split`.
        places: numbers of the tokens to look at.
        matching: the weight on the own place, as a mean over all tokens of a domain.
    """
    rows = []
    chance = 0.0
    for domain, (view, attention) in domains.items():
        chance = 1 / len(attention)
        boxes = tuple(_box(place, view, "#ffd400", str(number)) for number, place in enumerate(places, start=1))
        maps = [_map_cell(view, attention[place], place) for place in places]
        caption = f"{domain}: {matching[domain]:.3f} on the own place, in the mean of all patches"
        own = Cell(_over(_heat(attention.diagonal()), view), exact=True, caption="black 0, light yellow 1")
        rows.append(Row(caption, (Cell(shown(view.image), exact=False, boxes=boxes), *maps, own)))
    columns = ("image", *(f"attention of patch {number}" for number in range(1, len(places) + 1)), "own weight of each patch")
    note = (
        "Attention of single patches of the student over the teacher's patches of the same view; each map is scaled to its own "
        "largest weight, and the frame is the patch's own place. Last, the weight that every patch puts on its own; by chance it "
        f"would be {chance:.3f}. {VIEW}"
    )
    return Sheet(title, columns, tuple(rows), note)


def _map_cell(view: TokenView, weights: Tensor, place: int) -> Cell:
    share = weights / weights.max()
    cover = COVER * _over(share.unsqueeze(1), view)
    grey = shown(view.image).mean(axis=2, keepdims=True) // GREY_STEP * GREY_STEP
    blend = (1 - cover) * grey + cover * _over(_heat(share), view)
    caption = f"{float(weights[place]):.3f} on its own, {float(weights.max()):.3f} at most"
    return Cell(blend.astype(np.uint8), exact=True, caption=caption, boxes=(_box(place, view, OWN_PLACE),))


def _heat(shares: Tensor) -> Tensor:
    """Numbers (N,) in 0..1 as colours, uint8 (N, 3)."""
    return torch.from_numpy((colormaps["inferno"](shares.double().numpy())[:, :3] * 255).astype(np.uint8))


def _over(values: Tensor, view: TokenView) -> np.ndarray:
    """Values of tokens (N, c) as squares over their image (H, W, c)."""
    height, width = view.image.shape[-2:]
    rows, columns = view.grid
    grid = values.numpy().reshape(rows, columns, -1)
    squares: np.ndarray = grid[np.arange(height) * rows // height][:, np.arange(width) * columns // width]
    return squares


def _box(place: int, view: TokenView, color: str, label: str = "") -> Box:
    height, width = (side / count for side, count in zip(view.image.shape[-2:], view.grid, strict=True))
    row, column = divmod(place, view.grid[1])
    return Box(column * width, row * height, width, height, color, label)
