"""Mask2Former's loss: queries are matched to the classes of an image, one to one, and each learns its class and mask.

Costs and losses are transformers' own; ours is that pixels labelled IGNORE take part in nothing. mmsegmentation and
transformers count them as background of every mask.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, distributed
from torch.nn import functional

from gkd_core.data.catalog.taxonomy import IGNORE
from gkd_core.models.points import CountedArea, sample_at, uncertain_points
from gkd_core.settings import Mask2FormerSettings


@dataclass(frozen=True)
class Prediction:
    """One layer's output: `classes` (B, Q, K + 1), the last one 'no object', and `masks` (B, Q, h, w), both logits."""

    classes: Tensor
    masks: Tensor


@dataclass(frozen=True)
class Scene:
    """What one label map shows: the ids (n,) of its classes, their masks (n, H, W), where it counts, and which cells (h, w)
    of a predicted mask see nothing that counts."""

    classes: Tensor
    masks: Tensor
    area: CountedArea
    unseen: Tensor


def set_loss(layers: Sequence[Prediction], target: Tensor, settings: Mask2FormerSettings) -> dict[str, Tensor]:
    """Weighted losses, summed over the layers (deep supervision): `loss` and, without gradient, its three parts.

    Args:
        layers: predictions of all decoder layers, the last layer last.
        target: train ids (B, H, W), IGNORE where a pixel does not count. An image of nothing else takes no part.
    """
    size = (layers[-1].masks.shape[-2], layers[-1].masks.shape[-1])
    scenes = {index: _scene(ids, size) for index, ids in enumerate(target) if bool((ids != IGNORE).any())}
    num_masks = _mean_over_ranks(sum(len(scene.classes) for scene in scenes.values()), target.device)
    if not scenes:
        return {"loss": torch.stack([(layer.classes.sum() + layer.masks.sum()) * 0 for layer in layers]).sum()}
    # Matching and losses want single precision, whatever the network computed in.
    with torch.autocast(target.device.type, enabled=False):
        # The last layer first, as transformers has it: from the same random state we draw the same points.
        parts = [_layer_loss(layer, scenes, num_masks, settings) for layer in (layers[-1], *layers[:-1])]
    total = {name: torch.stack([part[name] for part in parts]).sum() for name in parts[0]}
    return {"loss": torch.stack(list(total.values())).sum(), **{name: value.detach() for name, value in total.items()}}


def _scene(target: Tensor, size: tuple[int, int]) -> Scene:
    area = CountedArea(target)
    classes = target[target != IGNORE].unique()
    return Scene(classes, (target == classes[:, None, None]).float(), area, area.unseen(size))


def _layer_loss(
    layer: Prediction, scenes: Mapping[int, Scene], num_masks: Tensor, settings: Mask2FormerSettings
) -> dict[str, Tensor]:
    from transformers.models.mask2former.modeling_mask2former import dice_loss, sigmoid_cross_entropy_loss

    classes = layer.classes[list(scenes)].float()
    # What is predicted where nothing counts has neither effect nor gradient, not even by the rounding of coordinates.
    masks = [layer.masks[index].float().masked_fill(scene.unseen, 0.0) for index, scene in scenes.items()]
    matches = [match(*found, settings) for found in zip(classes, masks, scenes.values(), strict=True)]
    predicted = [part[queries] for part, (queries, _) in zip(masks, matches, strict=True)]
    true = [scene.masks[shown] for scene, (_, shown) in zip(scenes.values(), matches, strict=True)]
    points = uncertain_points(predicted, [scene.area for scene in scenes.values()], settings)
    logits, labels = (sample_at(torch.cat(maps).unsqueeze(1), points)[:, 0] for maps in (predicted, true))
    wanted = [scene.classes[shown] for scene, (_, shown) in zip(scenes.values(), matches, strict=True)]
    return {
        "loss_class": settings.class_weight * _class_loss(classes, [queries for queries, _ in matches], wanted, settings),
        "loss_mask": settings.mask_weight * sigmoid_cross_entropy_loss(logits, labels, 1) / num_masks,
        "loss_dice": settings.dice_weight * dice_loss(logits, labels, 1) / num_masks,
    }


@torch.no_grad()
def match(classes: Tensor, masks: Tensor, scene: Scene, settings: Mask2FormerSettings) -> tuple[Tensor, Tensor]:
    """Queries and the indices of the scene's classes that they are matched to, at the least total cost (Hungarian).

    Args:
        classes: class logits (Q, K + 1) of one image.
        masks: its mask logits (Q, h, w).
    """
    from scipy.optimize import linear_sum_assignment
    from transformers.models.mask2former.modeling_mask2former import pair_wise_dice_loss, pair_wise_sigmoid_cross_entropy_loss

    points = scene.area.random_points(1, settings.points)
    predicted, true = sample_at(masks.unsqueeze(0), points)[0], sample_at(scene.masks.unsqueeze(0), points)[0]
    cost = (
        settings.mask_weight * pair_wise_sigmoid_cross_entropy_loss(predicted, true)
        + settings.dice_weight * pair_wise_dice_loss(predicted, true)
        - settings.class_weight * classes.softmax(-1)[:, scene.classes]
    )
    # A diverged model must reach the training loop, which says what to do, rather than fail in scipy.
    huge = torch.finfo(cost.dtype).max
    queries, shown = linear_sum_assignment(torch.nan_to_num(cost, nan=huge, posinf=huge, neginf=huge).cpu().numpy())
    return torch.from_numpy(queries).to(masks.device), torch.from_numpy(shown).to(masks.device)


def _class_loss(logits: Tensor, queries: Sequence[Tensor], classes: Sequence[Tensor], settings: Mask2FormerSettings) -> Tensor:
    """Cross entropy of all queries' logits (B, Q, K + 1): an image's `queries` want `classes`, all others 'no object'."""
    no_object = logits.shape[-1] - 1
    wanted = torch.full(logits.shape[:2], no_object, dtype=torch.int64, device=logits.device)
    for row, matched, found in zip(wanted, queries, classes, strict=True):
        row[matched] = found
    weight = torch.ones(logits.shape[-1], device=logits.device)
    weight[no_object] = settings.no_object_weight
    return functional.cross_entropy(logits.transpose(1, 2), wanted, weight=weight)


def _mean_over_ranks(count: int, device: torch.device) -> Tensor:
    """Masks in a rank's batch, at least 1: the mean over ranks, so that the ranks' mean gradient is that of the whole batch."""
    total = torch.tensor(float(count), device=device)
    if distributed.is_available() and distributed.is_initialized():
        distributed.all_reduce(total)
        total /= distributed.get_world_size()
    return total.clamp_min(1)
