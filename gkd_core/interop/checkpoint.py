"""The authors' checkpoint files, read without running anything that they hold."""

from __future__ import annotations

import argparse
import codecs
import pickle
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy
import torch
from numpy._core import multiarray
from torch import Tensor

from gkd_core.errors import WeightsError
from gkd_core.messages import one_line, shown
from gkd_core.models.tensor_files import check_tensor, load_data, read_tensors

Kind = Literal["stage-one", "stage-two"]


class InertHistory:
    """Stands for mmengine's `HistoryBuffer`, logged numbers that every mmengine checkpoint carries and nobody here reads."""


# All that the two kinds of file need beside tensors: bags of attributes, numbers, arrays. numpy's functions have had two homes.
ALLOWED: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [
    argparse.Namespace,
    (InertHistory, "mmengine.logging.history_buffer.HistoryBuffer"),
    (codecs.encode, "_codecs.encode"),
    numpy.dtype,
    numpy.ndarray,
    *(type(numpy.dtype(name)) for name in ("float64", "float32", "int64", "int32", "bool")),
    *((multiarray.scalar, f"{home}.multiarray.scalar") for home in ("numpy.core", "numpy._core")),
    *((multiarray._reconstruct, f"{home}.multiarray._reconstruct") for home in ("numpy.core", "numpy._core")),
]


@dataclass(frozen=True)
class ReleasedCheckpoint:
    """A checkpoint of the authors' code.

    Attributes:
        kind: stage one (student, teacher, heads) or stage two (backbone, decode head).
        tensors: by the authors' names.
        updates: optimizer updates that it states, 0 where it states none.
        unread: further entries of the file, such as `optimizer`.
    """

    path: Path
    kind: Kind
    tensors: dict[str, Tensor]
    updates: int
    unread: tuple[str, ...]


def read_released(path: Path) -> ReleasedCheckpoint:
    """Read a checkpoint of the authors' stage one or two into CPU memory.

    Raises:
        WeightsError: the file is missing or damaged, wants more than data, or is no such checkpoint.
    """
    content: Any = read_tensors(path) if path.suffix == ".safetensors" else _load(path)
    if not isinstance(content, Mapping):
        raise WeightsError(f"{path}: expected a mapping with 'model' or 'state_dict', found a {type(content).__name__}")
    key = next((key for key in ("state_dict", "model") if isinstance(content.get(key), Mapping)), None)
    state: Mapping[str, Any] = content if key is None else content[key]
    tensors = {str(name).removeprefix("module."): value for name, value in state.items() if isinstance(value, Tensor)}
    for name, value in tensors.items():
        check_tensor(path, name, value)
    meta = content.get("meta")
    updates = meta.get("iter", 0) if isinstance(meta, Mapping) else 0
    unread = () if key is None else tuple(str(name) for name in content if name != key)
    return ReleasedCheckpoint(path, _kind(path, tensors), tensors, updates if isinstance(updates, int) else 0, unread)


def _kind(path: Path, tensors: Mapping[str, Tensor]) -> Kind:
    if any(name.startswith("student.backbone.") for name in tensors):
        return "stage-one"
    if any(name.startswith("decode_head.") for name in tensors):
        return "stage-two"
    found = ", ".join(map(shown, list(tensors)[:3])) or "no tensors"
    raise WeightsError(
        f"{path}: neither student.backbone.* (stage one) nor decode_head.* (stage two) in it, but {found}; "
        "plain backbones need no import: give the file as an encoder's weights"
    )


def _load(path: Path) -> Any:
    if not path.is_file():
        raise WeightsError(f"{path}: no such checkpoint file")
    try:
        with torch.serialization.safe_globals(ALLOWED):
            return load_data(path)
    except pickle.UnpicklingError as error:
        raise WeightsError(f"{path}: {_refusal(error)}") from None
    except ValueError as error:
        raise WeightsError(f"{path}: cannot be read as a checkpoint ({error}); fetch it again") from None


def _refusal(error: Exception) -> str:
    """What the pickle wants beyond data; torch names it after the word GLOBAL."""
    wanted = re.search(r"GLOBAL (\S+)", str(error))
    what = shown(wanted.group(1)) if wanted else one_line(error)
    return f"refused, nothing in it was run: it holds more than data ({what}); save its state dict alone, as tensors"
