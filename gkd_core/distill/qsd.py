"""Query-based soft distillation, the method's own layer."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class QuerySoftDistillation(nn.Module):
    """The student asks the teacher where each of its tokens belongs, and answers with its own values.

    With student tokens s and teacher tokens t:  softmax(phi(s) · tᵀ) · psi(s), compared with t by the caller. The values
    are the student's, there is no 1/sqrt(d) scale, and the teacher gives keys and targets only (GKD, arXiv 2603.02554,
    query-based soft distillation). phi and psi are LayerNorm → Linear; their names in the state dict, `proj_q` and
    `proj_v`, are those of the released checkpoints.
    """

    def __init__(self, student_dim: int, teacher_dim: int, num_heads: int = 1) -> None:
        super().__init__()
        if teacher_dim % num_heads:
            raise ValueError(f"teacher_dim {teacher_dim} is not a multiple of num_heads {num_heads}")
        self.num_heads = num_heads
        self.proj_q = nn.Sequential(nn.LayerNorm(student_dim), nn.Linear(student_dim, teacher_dim))
        self.proj_v = nn.Sequential(nn.LayerNorm(student_dim), nn.Linear(student_dim, teacher_dim))

    def forward(self, student_tokens: Tensor, teacher_tokens: Tensor) -> Tensor:
        """Student tokens (B, N, Cs) and teacher tokens (B, N, Ct) to the student's answer (B, N, Ct)."""
        attended = self.attention(student_tokens, teacher_tokens) @ self._split(self.proj_v(student_tokens))
        return attended.transpose(1, 2).flatten(2)

    def attention(self, student_tokens: Tensor, teacher_tokens: Tensor) -> Tensor:
        """Attention weights (B, heads, N, N): rows are student tokens, columns teacher tokens."""
        return torch.softmax(self.logits(student_tokens, teacher_tokens), dim=-1)

    def logits(self, student_tokens: Tensor, teacher_tokens: Tensor) -> Tensor:
        """What the softmax is taken of, (B, heads, N, N)."""
        queries = self._split(self.proj_q(student_tokens))
        keys = self._split(teacher_tokens)
        return queries @ keys.transpose(-2, -1)

    def _split(self, tokens: Tensor) -> Tensor:
        """(B, N, C) to (B, heads, N, C / heads)."""
        return tokens.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)


def attention_entropy(attention: Tensor) -> Tensor:
    """Mean entropy of the rows of attention weights (B, heads, N, N), as a share of its maximum log N; 1 is uniform."""
    tokens = attention.shape[-1]
    if tokens == 1:
        return attention.new_zeros(())
    rows = -(attention * attention.clamp_min(1e-12).log()).sum(dim=-1)
    return rows.mean() / torch.log(attention.new_tensor(float(tokens)))


def matching_weight(attention: Tensor) -> Tensor:
    """Mean weight that a student token puts on the teacher token of its own place; chance is 1 / N."""
    return attention.diagonal(dim1=-2, dim2=-1).mean()
