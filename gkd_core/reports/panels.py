"""Panels: image, truth, prediction, and where both agree."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from matplotlib.patches import Patch

from gkd_core.data.catalog.taxonomy import IGNORE, Taxonomy
from gkd_core.data.colors import class_patches, color_label
from gkd_core.evaluate.confusion import class_iou, mean_iou
from gkd_core.evaluate.matrix import Prediction
from gkd_core.reports.sheet import Cell, Row, Sheet

COLUMNS = ("image", "truth", "prediction", "right or wrong")
RIGHT, WRONG = (214, 224, 230), (204, 57, 43)
LONGEST_NAME = 42  # letters that fit a caption; of longer names the end is shown
NOTE = (
    "The prediction is the one that the score counts: same sizes, windows and views. mIoU is of the one image, over the classes "
    "that occur in its truth or prediction."
)


def spaced(available: int, count: int) -> list[int]:
    """The middle of each of `count` equal parts of a list, or all of it where it is shorter: ascending, each once."""
    parts = min(available, count)
    return [(2 * part + 1) * available // (2 * parts) for part in range(parts)]


def image_miou(prediction: Prediction, classes: int) -> float | None:
    """mIoU of one image in percent; None where all of its pixels are ignored."""
    matrix = prediction.confusion(classes)
    return mean_iou(class_iou(matrix)) if matrix.any() else None


def panel_sheet(title: str, predictions: Mapping[str, Prediction], taxonomy: Taxonomy) -> Sheet:
    """One row an image, by its name.

    Raises:
        DataError: a label has a class that the taxonomy does not.
    """
    labels = [ids for prediction in predictions.values() for ids in (prediction.truth.numpy(), _answer(prediction))]
    legend = (*class_patches(labels, taxonomy), _patch(RIGHT, "right"), _patch(WRONG, "wrong"))
    rows = tuple(_row(name, prediction, taxonomy) for name, prediction in predictions.items())
    return Sheet(title, COLUMNS, rows, NOTE, legend)


def shown(image: torch.Tensor) -> np.ndarray:
    """An image (3, H, W) in 0..1 as uint8 (H, W, 3)."""
    pixels: np.ndarray = (image * 255).round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0).numpy()
    return pixels


def agreement(prediction: Prediction, taxonomy: Taxonomy) -> np.ndarray:
    """Where the prediction is right and where not, uint8 (H, W, 3); what is ignored is striped, as in `color_label`."""
    truth = prediction.truth.numpy()
    colors = np.where((_answer(prediction) == truth)[..., None], RIGHT, WRONG).astype(np.uint8)
    ignored = truth == IGNORE
    colors[ignored] = color_label(truth, taxonomy)[ignored]
    return colors


def _row(name: str, prediction: Prediction, taxonomy: Taxonomy) -> Row:
    truth = prediction.truth.numpy()
    miou = image_miou(prediction, len(taxonomy.classes))
    said = "nothing to score"
    if miou is not None:
        right = (_answer(prediction) == truth)[truth != IGNORE].mean()
        said = f"mIoU {miou:.1f} %, {100 * right:.1f} % of pixels right"
    cells = (
        Cell(shown(prediction.image), exact=False),
        Cell(color_label(truth, taxonomy), exact=True),
        Cell(color_label(_answer(prediction), taxonomy), exact=True),
        Cell(agreement(prediction, taxonomy), exact=True),
    )
    short = name if len(name) <= LONGEST_NAME else f"…{name[1 - LONGEST_NAME :]}"
    return Row(f"{short}: {said}", cells)


def _answer(prediction: Prediction) -> np.ndarray:
    """The model's classes, (H, W), uint8."""
    ids: np.ndarray = prediction.answer.to(torch.uint8).numpy()
    return ids


def _patch(color: tuple[int, int, int], label: str) -> Patch:
    return Patch(facecolor="#{:02x}{:02x}{:02x}".format(*color), edgecolor="black", linewidth=0.4, label=label)
