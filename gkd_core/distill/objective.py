"""Objectives of stage one: a student and its distillation heads, from a batch to a loss."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from timm.layers.drop import DropPath
from torch import Tensor, nn
from torch.nn import functional

from gkd_core.distill.qsd import QuerySoftDistillation, attention_entropy, matching_weight
from gkd_core.distill.warm_start import HeadLoss, match_queries, value_loss
from gkd_core.models.encoder import Encoder, Tokens
from gkd_core.training.precision import full_precision

Losses = dict[str, Tensor]


@dataclass(frozen=True)
class DistillBatch:
    """What one update of stage one looks at.

    Attributes:
        images: the views, (B, 3, H, W) in 0..1.
        masks: hidden patches of the first M views, (M, N), bool.
        teacher: the teacher's tokens of the same views.
        warm_up: whether this update belongs to the warm start.
    """

    images: Tensor
    masks: Tensor
    teacher: Tokens
    warm_up: bool


@dataclass(frozen=True)
class LossWeights:
    """Weights of the three losses (released: all 1)."""

    cls: float = 1.0
    feat: float = 1.0
    mask: float = 1.0


class QSDObjective(nn.Module):
    """GKD's stage-one loss (gkd: cls + feat + mask, each by query-based soft distillation).

    The student sees the clean view and, of the masked images only, the masked view: the rest of the released masked view
    equals the clean one, so its tokens are taken from there. That holds while the student draws nothing of its own; with
    drop path or dropout it sees all of both views, as released.
    """

    def __init__(
        self,
        student: Encoder,
        teacher_dim: int,
        num_heads: int = 1,
        weights: LossWeights | None = None,
        query_loss: HeadLoss = match_queries,
    ) -> None:
        super().__init__()
        self.student = student
        self.query_loss = query_loss
        self.token = QuerySoftDistillation(student.dim, teacher_dim, num_heads)
        self.fea = QuerySoftDistillation(student.dim, teacher_dim, num_heads)
        self.patch = QuerySoftDistillation(student.dim, teacher_dim, num_heads)
        self.weights = weights or LossWeights()

    def forward(self, batch: DistillBatch) -> Losses:
        """Scalar losses by name; `loss` is the one to minimise, the others are for the eye."""
        clean, masked_patches = self._views(batch)
        # Heads and losses in float32, whatever the student's format: the attention's logits have no scale to keep them small.
        with full_precision(batch.images.device):
            return self._losses(clean, masked_patches, batch)

    def _losses(self, clean: Tokens, masked_patches: Tensor, batch: DistillBatch) -> Losses:
        if batch.warm_up:
            return self._warm_up_losses(clean, masked_patches, batch.teacher)
        losses = qsd_losses(self.token, self.fea, self.patch, clean, masked_patches, batch.teacher)
        total = (
            self.weights.cls * losses["loss_cls"]
            + self.weights.feat * losses["loss_feat"]
            + self.weights.mask * losses["loss_mask"]
        )
        return {"loss": total, **losses}

    @torch.no_grad()
    def observe(self, batch: DistillBatch) -> dict[str, float]:
        """How the attention does: entropy as a share of its maximum, and the matching token's weight (chance: 1 / N)."""
        # In evaluation mode, or a look at a CNN would move its batch statistics, and log_every would change the result.
        training = self.student.training
        tokens = self.student.eval().tokens(batch.images)
        self.student.train(training)
        attention = self.fea.attention(tokens.patches, batch.teacher.patches)
        return {"attention_entropy": attention_entropy(attention).item(), "matching_weight": matching_weight(attention).item()}

    def _views(self, batch: DistillBatch) -> tuple[Tokens, Tensor]:
        """Clean tokens, and the patches (B, N, C) of the masked view, from one pass of the student."""
        masked, count = batch.masks.shape[0], batch.images.shape[0]
        seen_twice = count if draws_of_its_own(self.student) else masked
        masks = batch.masks.new_zeros(count + seen_twice, batch.masks.shape[1])
        masks[count : count + masked] = batch.masks
        both = self.student.tokens(torch.cat([batch.images, batch.images[:seen_twice]]), masks if seen_twice else None)
        cls, patches = both.cls.float(), both.patches.float()
        return Tokens(cls[:count], patches[:count]), torch.cat([patches[count:], patches[seen_twice:count]])

    def _warm_up_losses(self, clean: Tokens, masked_patches: Tensor, teacher: Tokens) -> Losses:
        """Without attention: psi learns by MSE, with the student, and phi by the warm start's own loss."""
        views = (
            (self.weights.cls, self.token, clean.cls.unsqueeze(1), teacher.cls.unsqueeze(1)),
            (self.weights.feat, self.fea, clean.patches, teacher.patches),
            (self.weights.mask, self.patch, masked_patches, teacher.patches),
        )
        values = [weight * value_loss(head, student, target) for weight, head, student, target in views]
        queries = [weight * self.query_loss(head, student, target) for weight, head, student, target in views]
        value, query = torch.stack(values).sum(), torch.stack(queries).sum()
        return {"loss": value + query, "loss_values": value.detach(), "loss_queries": query.detach()}


class MSEObjective(nn.Module):
    """Plain feature distillation: the student's patch tokens, through LayerNorm → Linear, against the teacher's by MSE."""

    def __init__(self, student: Encoder, teacher_dim: int) -> None:
        super().__init__()
        self.student = student
        self.proj = nn.Sequential(nn.LayerNorm(student.dim), nn.Linear(student.dim, teacher_dim))

    def forward(self, batch: DistillBatch) -> Losses:
        """Scalar losses by name; `loss` is the one to minimise."""
        patches = self.student.tokens(batch.images).patches.float()
        with full_precision(batch.images.device):
            return {"loss": functional.mse_loss(self.proj(patches), batch.teacher.patches)}

    def observe(self, batch: DistillBatch) -> dict[str, float]:
        """Nothing to watch: there is no attention."""
        return {}


def draws_of_its_own(student: Encoder) -> bool:
    """Whether two passes of one view differ: by drop path or dropout, while training."""
    return any(
        module.training and float(getattr(module, name, 0) or 0) > 0
        for module in student.modules()
        for kind, name in ((DropPath, "drop_prob"), (nn.Dropout, "p"))
        if isinstance(module, kind)
    )


def qsd_losses(
    token: QuerySoftDistillation,
    fea: QuerySoftDistillation,
    patch: QuerySoftDistillation,
    student: Tokens,
    masked_patches: Tensor,
    teacher: Tokens,
) -> Losses:
    """The three released losses, each an MSE with mean reduction, before their weights.

    cls compares (B, 1, Ct); feat compares the concatenation of cls and patches, (B, N + 1, Ct); mask compares all N
    patches of the masked view, not only the hidden ones.
    """
    cls_target = teacher.cls.unsqueeze(1)
    cls_answer = token(student.cls.unsqueeze(1), cls_target)
    patch_answer = fea(student.patches, teacher.patches)
    return {
        "loss_cls": functional.mse_loss(cls_answer, cls_target),
        "loss_feat": functional.mse_loss(
            torch.cat([cls_answer, patch_answer], dim=1), torch.cat([cls_target, teacher.patches], dim=1)
        ),
        "loss_mask": functional.mse_loss(patch(masked_patches, teacher.patches), teacher.patches),
    }
