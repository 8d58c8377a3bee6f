"""What a finished step of stage one leaves: the student, its moving average, and both with the heads to go on from."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from gkd_core.models.tensor_files import write_tensors
from gkd_core.training.checkpoint import State


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
