"""Exact scores, against a count by hand and against the official Cityscapes evaluator."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from gkd_core.data.catalog.load import load_catalog
from gkd_core.data.catalog.taxonomy import IGNORE, LabelEncoding
from gkd_core.data.files.reading import read_label
from gkd_core.errors import DataError
from gkd_core.evaluate.confusion import class_iou, confusion, mean_iou


def counted_by_hand(prediction: np.ndarray, target: np.ndarray, classes: int) -> list[list[int]]:
    table = [[0] * classes for _ in range(classes)]
    for guess, truth in zip(prediction.flat, target.flat, strict=True):
        if truth != IGNORE:
            table[truth][guess] += 1
    return table


@settings(max_examples=50)
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


@settings(max_examples=15)
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


def test_ids_that_are_no_class_are_refused() -> None:
    """19 true in 3 classes would be counted in row 6 of a table of 3 rows, or past its end."""
    zeros = torch.zeros(4, dtype=torch.uint8)
    with pytest.raises(DataError, match="true train ids reach from 0 to 19; expected 0 to 2, or 255 for ignored pixels"):
        confusion(zeros, torch.tensor([0, 19, 2, IGNORE], dtype=torch.uint8), 3)
    with pytest.raises(DataError, match="predicted train ids reach from 0 to 3; expected 0 to 2"):
        confusion(torch.tensor([0, 3]), torch.zeros(2).long(), 3)
    ignored = torch.full((4,), IGNORE, dtype=torch.uint8)
    assert not confusion(zeros + 9, ignored, 3).any(), "what is ignored may be anything"


@pytest.mark.parametrize("absent", [None, 7])
def test_miou_agrees_with_the_official_evaluator_on_label_maps_on_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, absent: int | None
) -> None:
    """Several images, each with ignored labels of several kinds (void ids, not only one), predictions inside them included."""
    evaluator: Any = pytest.importorskip("cityscapesscripts.evaluation.evalPixelLevelSemanticLabeling")
    for more in ("evalInstLevelScore", "evalPixelAccuracy"):
        monkeypatch.setattr(evaluator.args, more, False)
    labels = [label for label in evaluator.labels if not label.ignoreInEval]
    file_ids = np.array([label.id for label in labels])
    encoding = load_catalog().encodings["cityscapes-label-ids"]
    assert isinstance(encoding, LabelEncoding)
    draws = np.random.default_rng(0)
    known = [index for index in range(19) if index != absent]
    official, ours = evaluator.generateMatrix(evaluator.args), torch.zeros(19, 19, dtype=torch.int64)
    for index in range(3):
        true = draws.choice([*file_ids[known], 0, 1, 3, 4, 9, 14, 18, 29, 30], (40, 60)).astype(np.uint8)
        right = draws.random((40, 60)) < 0.7
        guess = np.where(right & np.isin(true, file_ids), true, draws.choice(file_ids[known], (40, 60))).astype(np.uint8)
        names = [str(tmp_path / f"{index}_{kind}_labelIds.png") for kind in ("guess", "true")]
        for name, ids in zip(names, (guess, true), strict=True):
            Image.fromarray(ids).save(name)
        counted = evaluator.evaluatePair(*names, official, {}, {}, evaluator.args)
        assert counted == 40 * 60
        read = [torch.from_numpy(read_label(Path(name), encoding)) for name in names]
        ours += confusion(*read, 19)
    scores = {label.name: evaluator.getIouScoreForLabel(label.id, official, evaluator.args) for label in labels}
    expected = evaluator.getScoreAverage(scores, evaluator.args)
    assert mean_iou(class_iou(ours)) / 100 == pytest.approx(expected, abs=1e-6)
    assert class_iou(ours)[0] == pytest.approx(100 * scores["road"], abs=1e-6)
    assert (absent is not None) == any(math.isnan(score) for score in scores.values())
    assert int(ours.sum()) == sum(int(official[true.id].sum()) for true in labels) < 3 * 40 * 60
