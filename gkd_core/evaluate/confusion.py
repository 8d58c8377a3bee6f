"""Exact scores: one integer confusion matrix a domain, and the IoU computed once from it."""

from __future__ import annotations

import torch
from torch import Tensor

from gkd_core.data.catalog.taxonomy import IGNORE
from gkd_core.errors import DataError


def confusion(prediction: Tensor, target: Tensor, classes: int) -> Tensor:
    """Pixel counts (classes, classes), int64: rows are true classes, columns predicted ones. Ignored pixels are left out.

    >>> confusion(torch.tensor([0, 0, 1, 1]), torch.tensor([0, 1, 1, IGNORE]), classes=2)
    tensor([[1, 0],
            [1, 1]])

    Raises:
        DataError: a true or predicted id is no class. (Counted as they come, such ids would land in cells of other classes.)
    """
    counted = target != IGNORE
    true, guessed = target[counted].long(), prediction[counted].long()
    for kind, ids in (("true", true), ("predicted", guessed)):
        if ids.numel() and not 0 <= int(ids.min()) <= int(ids.max()) < classes:
            raise DataError(
                f"{kind} train ids reach from {int(ids.min())} to {int(ids.max())}; expected 0 to {classes - 1}, or {IGNORE} for "
                "ignored pixels: the dataset's encoding and the segmentor's classes are not of one taxonomy"
            )
    return torch.bincount(true * classes + guessed, minlength=classes * classes).view(classes, classes)


def class_iou(matrix: Tensor) -> list[float | None]:
    """IoU in percent of each class, None where a class has neither true nor predicted pixels.

    >>> class_iou(torch.tensor([[3, 1, 0], [0, 4, 0], [0, 0, 0]]))
    [75.0, 80.0, None]
    """
    hits = matrix.diagonal().double()
    union = matrix.sum(dim=0) + matrix.sum(dim=1) - matrix.diagonal()
    return [100 * float(hit) / int(pixels) if pixels else None for hit, pixels in zip(hits, union, strict=True)]


def mean_iou(ious: list[float | None]) -> float:
    """Mean in percent over the classes that have an IoU; nan where none has."""
    known = [iou for iou in ious if iou is not None]
    return sum(known) / len(known) if known else float("nan")
