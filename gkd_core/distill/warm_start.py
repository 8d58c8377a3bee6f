"""Warm start of QSD: what its heads learn before the attention is switched on.

From a cold start the attention of `QuerySoftDistillation` does not line up (docs/qsd-start.md). During a warm start the
values psi learn alone, by plain MSE against the teacher token of their own place, and the queries phi learn by one of the
losses below, so that attention begins near the diagonal. Nothing of this is published: it is ours.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from gkd_core.distill.qsd import QuerySoftDistillation
from gkd_core.settings.distill import QueryStart

# Of a head, student tokens (B, N, Cs) and teacher tokens (B, N, Ct): a scalar.
HeadLoss = Callable[[QuerySoftDistillation, Tensor, Tensor], Tensor]


def value_loss(head: QuerySoftDistillation, student: Tensor, teacher: Tensor) -> Tensor:
    """MSE of psi against the teacher's tokens: what QSD is when its attention is the identity."""
    return functional.mse_loss(head.proj_v(student), teacher)


def regress_queries(head: QuerySoftDistillation, student: Tensor, teacher: Tensor) -> Tensor:
    """MSE of phi against the teacher's tokens, so that a query resembles its own key. The student learns from it too."""
    return functional.mse_loss(head.proj_q(student), teacher)


def match_queries(head: QuerySoftDistillation, student: Tensor, teacher: Tensor) -> Tensor:
    """Cross entropy of the attention against each token's own place, for phi alone.

    The student's tokens are held fixed: it learns from the values as if there were no attention, and phi learns to find
    the diagonal with what the tokens hold. Cross entropy also pulls at a softmax that is saturated on the wrong key, where
    the gradient of QSD's own loss is zero. With a single token it is zero.
    """
    log_attention = torch.log_softmax(head.logits(student.detach(), teacher), dim=-1)
    return -log_attention.diagonal(dim1=-2, dim2=-1).mean()


QUERY_LOSSES: dict[QueryStart, HeadLoss] = {"regression": regress_queries, "matching": match_queries}
