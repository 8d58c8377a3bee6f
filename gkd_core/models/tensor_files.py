"""Tensors in files, read and written as data: nothing in them is run."""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Mapping
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from gkd_core.errors import WeightsError
from gkd_core.files import atomic_file
from gkd_core.messages import one_line

# Keys under which training code keeps the tensors of a checkpoint; of DINO's two networks the teacher is the one to use.
CONTAINERS = ("state_dict", "model", "module", "teacher")


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read a `.safetensors` file, or a pickle restricted to tensors, into CPU memory.

    Raises:
        WeightsError: the file is missing, damaged, or holds something else than named tensors.
    """
    if not path.is_file():
        raise WeightsError(f"{path}: no such weights file; give an existing .safetensors or .pth file")
    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, ValueError, pickle.UnpicklingError, safetensors.SafetensorError) as error:
        raise WeightsError(
            f"{path}: cannot be read as weights ({one_line(error)}); fetch or export it again"
        ) from None
    for key in CONTAINERS:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping) or not all(isinstance(value, Tensor) for value in content.values()):
        raise WeightsError(f"{path}: expected a mapping of names to tensors, found {type(content).__name__}")
    return dict(content)


def read_checked(path: Path, sha256: str, described_by: str) -> dict[str, Tensor]:
    """Read a `.safetensors` file whose digest is known; what is used are the very bytes that were looked at.

    Args:
        described_by: what states the digest, for the message.

    Raises:
        WeightsError: the file is missing, or its content is not what was described.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read ({one_line(error)}); run its stage again or restore the file") from None
    if hashlib.sha256(content).hexdigest() != sha256:
        raise WeightsError(f"{path}: its content is not what {described_by} describes; run its stage again or restore the file")
    try:
        return safetensors.torch.load(content)
    except (ValueError, KeyError, RuntimeError, safetensors.SafetensorError) as error:
        raise WeightsError(f"{path}: cannot be read as weights ({one_line(error)}); fetch or export it again") from None


def write_tensors(tensors: Mapping[str, Tensor], path: Path, metadata: Mapping[str, str] | None = None) -> None:
    """Write a `.safetensors` file, atomically.

    Raises:
        OSError: the disk is full, or the folder cannot be written to.
    """
    # Serialised first and written by Python: safetensors' own writer says of a full disk what no caller would know as one.
    content = safetensors.torch.save(
        {name: tensor.contiguous() for name, tensor in tensors.items()}, dict(metadata or {}) or None
    )
    with atomic_file(path) as temporary:
        temporary.write_bytes(content)
