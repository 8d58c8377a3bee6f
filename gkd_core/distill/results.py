"""What a finished step of stage one leaves: the student, its average, both with the heads to go on from, and where those look."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from gkd_core.distill.qsd import QuerySoftDistillation
from gkd_core.distill.teacher import Grid
from gkd_core.models.tensor_files import read_tensors, write_tensors
from gkd_core.models.weights import load_into
from gkd_core.training.checkpoint import State

HEAD = "fea."  # of the objective's three heads, the one between patches of the clean view
PLACES = (0.25, 0.5, 0.75)  # of the height and of the width, where queries are looked at


def write_objective(state: State, path: Path) -> None:
    """Write the student and its heads from a finished training's state."""
    write_tensors(state["model"], path)


def write_student(state: State, path: Path) -> None:
    """Write the student alone, under its encoder's own names."""
    _write_student(state["model"], path)


def write_average(state: State, path: Path) -> None:
    """Write the moving average of the student, where the training kept one."""
    if "ema" in state:
        _write_student(state["ema"], path)


def _write_student(model: Mapping[str, Tensor], path: Path) -> None:
    prefix = "student."
    write_tensors({name.removeprefix(prefix): tensor for name, tensor in model.items() if name.startswith(prefix)}, path)


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
