"""Mask2Former's loss: queries are matched to the classes of an image, one to one, and each learns its class and mask.

Costs and losses are transformers' own. Pixels labelled IGNORE are background of every mask, as in mmsegmentation, transformers
and the authors' release, or, as `ignored` says, take part in nothing: that is ours.

Masks are compared at random points between pixels, where a bilinear sample looks at up to four of them. A point that looks at
an ignored pixel is moved to the centre of a pixel that counts, so that every point counts and nothing else does. Points are
(x, y) in 0..1 of an image; they are drawn from torch's global random state.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, distributed
from torch.nn import functional

from gkd_core.data.catalog.taxonomy import IGNORE
from gkd_core.settings import Mask2FormerSettings

LEAST_WEIGHT = 1e-4  # of a bilinear sample; below lies only what rounding leaves


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
        target: train ids (B, H, W), IGNORE where a pixel does not count. An image of nothing else takes no part where such
            pixels are left out, and has queries that all want 'no object' where they are background.
    """
    size = (layers[-1].masks.shape[-2], layers[-1].masks.shape[-1])
    shown = {index: _scene(ids, size, AREAS[settings.ignored](ids)) for index, ids in enumerate(target)}
    scenes = {index: scene for index, scene in shown.items() if scene.area.counts}
    num_masks = _mean_over_ranks(sum(len(scene.classes) for scene in scenes.values()), target.device)
    if not scenes:
        return {"loss": torch.stack([(layer.classes.sum() + layer.masks.sum()) * 0 for layer in layers]).sum()}
    # Matching and losses want single precision, whatever the network computed in.
    with torch.autocast(target.device.type, enabled=False):
        # The last layer first, as transformers has it: from the same random state we draw the same points.
        parts = [_layer_loss(layer, scenes, num_masks, settings) for layer in (layers[-1], *layers[:-1])]
    total = {name: torch.stack([part[name] for part in parts]).sum() for name in parts[0]}
    return {"loss": torch.stack(list(total.values())).sum(), **{name: value.detach() for name, value in total.items()}}


def _scene(target: Tensor, size: tuple[int, int], area: CountedArea) -> Scene:
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
    wanted = [scene.classes[shown] for scene, (_, shown) in zip(scenes.values(), matches, strict=True)]
    loss_class = settings.class_weight * _class_loss(classes, [queries for queries, _ in matches], wanted, settings)
    if not any(len(part) for part in true):
        none = torch.stack([mask.sum() for mask in masks]).sum() * 0
        return {"loss_class": loss_class, "loss_mask": none, "loss_dice": none}
    points = uncertain_points(predicted, [scene.area for scene in scenes.values()], settings)
    logits, labels = (sample_at(torch.cat(maps).unsqueeze(1), points)[:, 0] for maps in (predicted, true))
    return {
        "loss_class": loss_class,
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


def sample_at(maps: Tensor, points: Tensor) -> Tensor:
    """Bilinear samples (N, C, P) of maps (N, C, h, w) at points (N, P, 2); beyond the border lie zeros, as published."""
    return functional.grid_sample(maps, 2 * points.unsqueeze(2) - 1, align_corners=False).squeeze(3)


class CountedArea:
    """The pixels of one label map (H, W) that count.

    Attributes:
        counts: whether there are any.
    """

    def __init__(self, target: Tensor) -> None:
        ignored = target == IGNORE
        self._size = target.shape
        self._counted = (~ignored).flatten().nonzero()[:, 0]
        self.counts = len(self._counted) > 0
        self._ignored = ignored.float()[None, None] if bool(ignored.any()) else None

    def random_points(self, rows: int, count: int) -> Tensor:
        """Points (rows, count, 2), evenly spread."""
        return self._keep_clear(torch.rand(rows, count, 2, device=self._counted.device))

    def unseen(self, size: tuple[int, int]) -> Tensor:
        """Cells (h, w) of a coarser or equal grid that no pixel that counts looks at when the grid is resampled to pixels."""
        if self._ignored is None:
            return torch.zeros(size, dtype=torch.bool, device=self._counted.device)
        with torch.enable_grad():
            cells = self._ignored.new_zeros(1, 1, *size).requires_grad_()
            pixels = functional.interpolate(cells, size=self._size, mode="bilinear", align_corners=False)
            (weight,) = torch.autograd.grad(pixels, cells, 1 - self._ignored)
        return weight[0, 0] < LEAST_WEIGHT

    def _keep_clear(self, points: Tensor) -> Tensor:
        """Move each point that looks at an ignored pixel to the centre of a random pixel that counts."""
        if self._ignored is None:
            return points
        looks = sample_at(self._ignored, points.view(1, -1, 2)).view(points.shape[:-1]) > 0
        draws = torch.rand(points.shape[:-1], device=points.device) * len(self._counted)
        pixels = self._counted[draws.long().clamp_max(len(self._counted) - 1)]
        height, width = self._size
        centres = torch.stack([(pixels % width + 0.5) / width, (pixels // width + 0.5) / height], dim=-1)
        return torch.where(looks.unsqueeze(-1), centres, points)


def _whole_area(target: Tensor) -> CountedArea:
    return CountedArea(torch.zeros_like(target))


# What counts of a label map, by what becomes of the pixels that are ignored.
AREAS: Mapping[str, Callable[[Tensor], CountedArea]] = {"left-out": CountedArea, "background": _whole_area}


@torch.no_grad()
def uncertain_points(masks: Sequence[Tensor], areas: Sequence[CountedArea], settings: Mask2FormerSettings) -> Tensor:
    """Points (N, P, 2) of N masks, given image by image as (n, h, w): most where a mask is least sure of itself, the rest
    anywhere in its image's area."""
    drawn = _points(masks, areas, int(settings.points * settings.oversample))
    kept = int(settings.points * settings.importance)
    certainty = sample_at(torch.cat(list(masks)).unsqueeze(1), drawn)[:, 0].abs()
    chosen = certainty.topk(kept, dim=1, largest=False).indices
    rest = _points(masks, areas, settings.points - kept)
    return torch.cat([drawn.gather(1, chosen.unsqueeze(-1).expand(-1, -1, 2)), rest], dim=1)


def _points(masks: Sequence[Tensor], areas: Sequence[CountedArea], count: int) -> Tensor:
    return torch.cat([area.random_points(len(part), count) for part, area in zip(masks, areas, strict=True)])
