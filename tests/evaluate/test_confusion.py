"""Exact scores, against a count by hand and against the official Cityscapes evaluator."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gkd_core.data.taxonomy import IGNORE
from gkd_core.evaluate.confusion import class_iou, confusion, mean_iou


def counted_by_hand(prediction: np.ndarray, target: np.ndarray, classes: int) -> list[list[int]]:
    table = [[0] * classes for _ in range(classes)]
    for guess, truth in zip(prediction.flat, target.flat, strict=True):
        if truth != IGNORE:
            table[truth][guess] += 1
    return table


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 10**6), classes=st.integers(1, 20), ignored=st.floats(0, 1))
def test_counts_are_those_made_by_hand(seed: int, classes: int, ignored: float) -> None:
    draws = np.random.default_rng(seed)
    prediction = draws.integers(0, classes, (7, 9))
    target = np.where(draws.random((7, 9)) < ignored, IGNORE, draws.integers(0, classes, (7, 9))).astype(np.uint8)
    matrix = confusion(torch.from_numpy(prediction), torch.from_numpy(target), classes)
    assert matrix.dtype == torch.int64
    assert matrix.tolist() == counted_by_hand(prediction, target, classes)
    assert int(matrix.sum()) == int((target != IGNORE).sum())


def test_sums_over_images_stay_exact() -> None:
    """Pixel counts beyond 2 ** 24, where single precision would lose ones."""
    matrix = torch.tensor([[2**53 + 1, 1], [0, 0]])
    assert (matrix + confusion(torch.zeros(1).long(), torch.zeros(1).long(), 2))[0, 0].item() == 2**53 + 2


def test_iou_by_hand() -> None:
    matrix = torch.tensor([[6, 2, 0, 0], [1, 3, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]])
    matrix[0, 3] = 2  # class 3 is never true but predicted; class 2 is neither
    ious = class_iou(matrix)
    assert ious == pytest.approx([100 * 6 / 11, 100 * 3 / 6, None, 0.0])
    assert mean_iou(ious) == pytest.approx((600 / 11 + 50 + 0) / 3)
    assert math.isnan(mean_iou([None, None]))


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_iou_agrees_with_the_official_cityscapes_evaluator(seed: int) -> None:
    evaluator: Any = pytest.importorskip("cityscapesscripts.evaluation.evalPixelLevelSemanticLabeling")
    labels = [label for label in evaluator.labels if not label.ignoreInEval]
    draws = np.random.default_rng(seed)
    matrix = draws.integers(0, 1000, (19, 19)) * (draws.random((19, 19)) < 0.6)
    absent = draws.integers(19)
    matrix[absent, :] = matrix[:, absent] = 0
    official = evaluator.generateMatrix(evaluator.args)
    for row, true in enumerate(labels):
        for column, predicted in enumerate(labels):
            official[true.id, predicted.id] = matrix[row, column]
    expected = [evaluator.getIouScoreForLabel(label.id, official, evaluator.args) for label in labels]
    ours = class_iou(torch.from_numpy(matrix))
    assert ours == pytest.approx([None if math.isnan(value) else 100 * value for value in expected])
    assert ours[absent] is None
