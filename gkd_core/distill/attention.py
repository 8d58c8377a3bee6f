"""Where query-based soft distillation looks: the head that compares patches, read back, and its attention."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from gkd_core.distill.alignment import Grid
from gkd_core.distill.qsd import QuerySoftDistillation
from gkd_core.models.tensor_files import read_tensors
from gkd_core.models.weights import load_into

HEAD = "fea."  # of the objective's three heads, the one between patches of the clean view
PLACES = (0.25, 0.5, 0.75)  # of the height and of the width, where queries are looked at


def read_head(objective: Path, student_dim: int, teacher_dim: int, num_heads: int) -> QuerySoftDistillation:
    """The head of a finished step of stage one, in evaluation mode.

    Raises:
        WeightsError: the file is missing or damaged, or its heads are of other sizes.
    """
    tensors = {name.removeprefix(HEAD): tensor for name, tensor in read_tensors(objective).items() if name.startswith(HEAD)}
    head = QuerySoftDistillation(student_dim, teacher_dim, num_heads)
    load_into(head, tensors, str(objective))
    return head.eval()


@torch.inference_mode()
def patch_attention(head: QuerySoftDistillation, student: Tensor, teacher: Tensor) -> Tensor:
    """Attention (N, N) between the patch tokens of one view, (N, Cs) and (N, Ct): the mean over heads. Rows are the student's."""
    return head.attention(student.unsqueeze(0), teacher.unsqueeze(0))[0].mean(dim=0)


def query_places(grid: Grid) -> list[int]:
    """Tokens of a grid to look at, by their number: on its diagonal, at a quarter, half and three quarters."""
    rows, columns = grid
    places = [int(rows * place) * columns + int(columns * place) for place in PLACES]
    return list(dict.fromkeys(places))
