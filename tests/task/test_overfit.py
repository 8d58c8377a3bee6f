"""Every decoder can learn one batch by heart."""

from __future__ import annotations

import pytest
import torch

from gkd_core.data.catalog.taxonomy import IGNORE
from gkd_core.evaluate.confusion import class_iou, confusion, mean_iou
from gkd_core.models.build import build_encoder
from gkd_core.models.segmentor import build_segmentor
from gkd_core.settings import EncoderSettings, Mask2FormerSettings
from gkd_core.task.batches import Batch
from gkd_core.task.stage_two import EndToEndTask, FrozenTask

FEW = Mask2FormerSettings(
    queries=6, decoder_layers=2, pixel_layers=1, heads=2, feedforward=32, pixel_feedforward=32, points=128
)  # fmt: skip


@pytest.mark.parametrize(
    # On random features that stay as they are, a linear classifier cannot learn noise by heart.
    ("decoder", "task", "updates"),
    [("linear", EndToEndTask, 40), ("segformer", FrozenTask, 40), ("mask2former", FrozenTask, 30)],
)
def test_one_batch_is_learnt_by_heart(
    vit_settings: EncoderSettings, decoder: str, task: type[EndToEndTask] | type[FrozenTask], updates: int
) -> None:
    torch.manual_seed(0)
    images, target = torch.rand(2, 3, 64, 64), torch.zeros(2, 64, 64, dtype=torch.int64)
    target[0, :, 32:], target[1, 32:] = 1, 2
    target[:, :4] = IGNORE
    segmentor = build_segmentor(build_encoder(vit_settings, 0), decoder, 3, 64, 0, FEW)
    model = task(segmentor)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=3e-3)
    for _ in range(updates):
        optimizer.zero_grad()
        model(Batch(images, target))["loss"].backward()
        optimizer.step()
    with torch.no_grad():
        prediction = segmentor.eval()(images).argmax(dim=1)
    assert mean_iou(class_iou(confusion(prediction, target, 3))) > 95
