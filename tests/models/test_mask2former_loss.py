"""Mask2Former's loss: transformers' own as the oracle, and ignored pixels, which must not matter at all."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from gkd_core.data.catalog.taxonomy import IGNORE
from gkd_core.models.mask2former_loss import CountedArea, Prediction, _scene, match, sample_at, set_loss
from gkd_core.settings import Mask2FormerSettings

CLASSES, QUERIES = 4, 7
FEW = Mask2FormerSettings(points=60, ignored="left-out")
RELEASED = Mask2FormerSettings(points=60)


def layers_of(count: int, batch: int, size: tuple[int, int], seed: int = 0) -> list[Prediction]:
    draws = torch.Generator().manual_seed(seed)
    return [
        Prediction(
            torch.randn(batch, QUERIES, CLASSES + 1, generator=draws).requires_grad_(),
            (3 * torch.randn(batch, QUERIES, *size, generator=draws)).requires_grad_(),
        )
        for _ in range(count)
    ]


def blocks(batch: int, height: int, width: int) -> Tensor:
    """Labels of four quarters, in another order for each image."""
    rows, columns = torch.arange(height) * 2 // height, torch.arange(width) * 2 // width
    quarters = rows[:, None] * 2 + columns
    return torch.stack([(quarters + shift) % CLASSES for shift in range(batch)])


def seeded_loss(layers: list[Prediction], target: Tensor, settings: Mask2FormerSettings = FEW) -> dict[str, Tensor]:
    torch.manual_seed(5)
    return set_loss(layers, target, settings)


def test_without_ignored_pixels_it_is_transformers_own_loss_with_the_published_weights() -> None:
    from transformers import Mask2FormerConfig
    from transformers.models.mask2former.modeling_mask2former import Mask2FormerLoss

    layers, target = layers_of(3, 2, (8, 12)), blocks(2, 32, 48)
    target[1, :, 24:] = target[1, 0, 0]  # fewer classes in the second image
    config = Mask2FormerConfig(num_labels=CLASSES, train_num_points=60)
    weights = {"loss_cross_entropy": 2.0, "loss_mask": 5.0, "loss_dice": 5.0}
    labels = [ids.unique() for ids in target]
    auxiliary = [{"masks_queries_logits": layer.masks, "class_queries_logits": layer.classes} for layer in layers[:-1]]
    torch.manual_seed(5)
    parts = Mask2FormerLoss(config, weights)(
        layers[-1].masks,
        layers[-1].classes,
        [(ids == found[:, None, None]).float() for ids, found in zip(target, labels, strict=True)],
        labels,
        auxiliary,
    )
    assert len(parts) == 9, "three losses of each of three layers: deep supervision"
    ours = seeded_loss(layers, target)
    for name, weight in weights.items():
        expected = sum(weight * value for key, value in parts.items() if key.startswith(name))
        torch.testing.assert_close(ours[name.replace("cross_entropy", "class")], expected.detach())
    torch.testing.assert_close(ours["loss"], ours["loss_class"] + ours["loss_mask"] + ours["loss_dice"])


@pytest.mark.parametrize("size", [(32, 48), (33, 47), (8, 12)], ids=["pixels", "odd", "stride 4"])
def test_predictions_at_ignored_pixels_have_no_effect_and_no_gradient(size: tuple[int, int]) -> None:
    """At the labels' own size an ignored pixel is one cell. Coarser, a cell is ignored where all pixels that look at it are:
    the ignored part here spans whole cells and their neighbours."""
    height, width = (32, 48) if size == (8, 12) else size
    target = blocks(2, height, width)
    target[0, 8:24, 8:32] = IGNORE
    cells = torch.zeros(size, dtype=torch.bool)
    if size == (8, 12):
        cells[3:5, 3:7] = True  # pixels 12 to 19 and 12 to 27; their neighbours look at it from 8 to 23 and 8 to 31
    else:
        cells = target[0] == IGNORE
    layers = layers_of(2, 2, size)
    loss = seeded_loss(layers, target)["loss"]
    loss.backward()
    for layer in layers:
        assert layer.masks.grad is not None
        assert not layer.masks.grad[0][:, cells].any()
        assert layer.masks.grad[0][:, ~cells].any()
        assert layer.masks.grad[1].any()
    with torch.no_grad():
        for layer in layers:
            layer.masks[0][:, cells] = 1e4 * torch.randn(QUERIES, int(cells.sum()))
    assert torch.equal(seeded_loss(layers, target)["loss"], loss)


def test_matching_does_not_look_at_ignored_pixels() -> None:
    """Query 0 fits where the labels count and query 1 only where they do not."""
    target = torch.zeros(1, 16, 16, dtype=torch.int64)
    target[:, :, 4:] = IGNORE
    masks = torch.full((2, 16, 16), -8.0)
    masks[0, :, :4] = 8
    masks[1, :, 4:] = 8
    scene = _scene(target[0], (16, 16), CountedArea(target[0]))
    queries, shown = match(torch.zeros(2, CLASSES + 1), masks, scene, FEW)
    assert (queries.tolist(), shown.tolist()) == ([0], [0])


def test_every_class_is_matched_once_and_to_the_query_that_fits() -> None:
    target = blocks(1, 16, 16)
    masks = torch.full((QUERIES, 16, 16), -8.0)
    for query, label in ((6, 0), (2, 1), (4, 2), (0, 3)):
        masks[query][target[0] == label] = 8
    queries, shown = match(torch.zeros(QUERIES, CLASSES + 1), masks, _scene(target[0], (16, 16), CountedArea(target[0])), FEW)
    assert dict(zip(queries.tolist(), shown.tolist(), strict=True)) == {6: 0, 2: 1, 4: 2, 0: 3}


def test_as_released_an_ignored_pixel_is_background_of_every_mask() -> None:
    """transformers' own loss as the oracle again: its masks are zero where nothing is labelled, and all its points count."""
    from transformers import Mask2FormerConfig
    from transformers.models.mask2former.modeling_mask2former import Mask2FormerLoss

    (layer,), target = layers_of(1, 2, (8, 12)), blocks(2, 32, 48)
    target[0, :20, 10:30] = IGNORE
    labels = [ids[ids != IGNORE].unique() for ids in target]
    masks = [(ids == found[:, None, None]).float() for ids, found in zip(target, labels, strict=True)]
    weights = {"loss_cross_entropy": 2.0, "loss_mask": 5.0, "loss_dice": 5.0}
    torch.manual_seed(5)
    parts = Mask2FormerLoss(Mask2FormerConfig(num_labels=CLASSES, train_num_points=60), weights)(
        layer.masks, layer.classes, masks, labels
    )
    expected = sum(weight * parts[name] for name, weight in weights.items())
    torch.testing.assert_close(seeded_loss([layer], target, RELEASED)["loss"], expected)
    assert not torch.allclose(seeded_loss([layer], target)["loss"], expected)


def test_as_released_an_image_of_ignored_pixels_alone_wants_no_object() -> None:
    layers = layers_of(1, 2, (8, 8))
    for target in (torch.full((2, 32, 32), IGNORE), torch.stack([blocks(1, 32, 32)[0], torch.full((32, 32), IGNORE)])):
        loss = seeded_loss(layers, target, RELEASED)
        loss["loss"].backward()
        assert torch.isfinite(loss["loss"])
        assert layers[0].classes.grad is not None
        assert layers[0].classes.grad[1].any()


def test_images_of_ignored_pixels_alone_take_no_part() -> None:
    layers, target = layers_of(2, 3, (8, 8)), blocks(3, 32, 32)
    target[1] = IGNORE
    whole = seeded_loss(layers, target)
    without = seeded_loss([Prediction(layer.classes[[0, 2]], layer.masks[[0, 2]]) for layer in layers], target[[0, 2]])
    torch.testing.assert_close(whole, without)
    nothing = seeded_loss(layers, torch.full((3, 32, 32), IGNORE))["loss"]
    nothing.backward()
    assert nothing.item() == 0
    assert layers[0].masks.grad is not None
    assert not layers[0].masks.grad.any()


def test_the_points_are_a_function_of_the_random_state() -> None:
    layers, target = layers_of(2, 2, (8, 8)), blocks(2, 32, 32)
    target[0, :5] = IGNORE
    assert torch.equal(seeded_loss(layers, target)["loss"], seeded_loss(layers, target)["loss"])
    torch.manual_seed(6)
    assert not torch.equal(set_loss(layers, target, FEW)["loss"], seeded_loss(layers, target)["loss"])


def test_a_diverged_prediction_gives_a_loss_that_is_not_finite_rather_than_an_error_of_the_matcher() -> None:
    layers, target = layers_of(1, 1, (8, 8)), blocks(1, 32, 32)
    layers[0].masks.data[:] = torch.nan
    assert not seeded_loss(layers, target)["loss"].isfinite()


def test_points_spread_over_all_that_counts_and_nothing_else() -> None:
    target = torch.full((20, 30), IGNORE)
    target[3, 4] = target[17, 25] = 0
    target[8:12, 10:20] = 0
    torch.manual_seed(0)
    points = CountedArea(target).random_points(3, 4000)
    assert points.shape == (3, 4000, 2)
    ignored = sample_at((target == IGNORE).float()[None, None], points.view(1, -1, 2))
    assert ignored.max() < 1e-4, "rounding at most"
    columns, rows = (points[..., 0] * 30).long().flatten(), (points[..., 1] * 20).long().flatten()
    counts = torch.zeros(20, 30).index_put_((rows, columns), torch.ones(len(rows)), accumulate=True)
    assert ((counts > 0) == (target == 0)).all()
    assert counts[3, 4] == pytest.approx(12_000 / 42, rel=0.5)


def test_among_ranks_masks_are_averaged_over_the_masks_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """The other rank has six masks where this one has two: each is divided by their mean, four."""
    layers, target = layers_of(1, 1, (8, 8)), blocks(1, 32, 32) // 2
    alone = seeded_loss(layers, target)
    monkeypatch.setattr("torch.distributed.is_initialized", lambda: True)
    monkeypatch.setattr("torch.distributed.get_world_size", lambda: 2)
    monkeypatch.setattr("torch.distributed.all_reduce", lambda total: total.add_(6))
    among = seeded_loss(layers, target)
    torch.testing.assert_close(among["loss_mask"], alone["loss_mask"] / 2)
    torch.testing.assert_close(among["loss_dice"], alone["loss_dice"] / 2)
    torch.testing.assert_close(among["loss_class"], alone["loss_class"])
