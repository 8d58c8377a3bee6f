"""Tensors in files, read and written as data: nothing in them is run."""

from __future__ import annotations

import argparse
import hashlib
import pickle
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
import safetensors.torch
import torch
from torch import Tensor

from gkd_core.errors import WeightsError
from gkd_core.files import atomic_file
from gkd_core.messages import given_value, one_line, shown

# Keys under which training code keeps the tensors of a checkpoint; of DINO's two networks the teacher is the one to use.
CONTAINERS = ("state_dict", "model_state_dict", "model", "module", "teacher")
# What torch.compile, FSDP and activation checkpointing put into names, at any depth.
COMPILED = ("_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module.")
# Plain values that training code keeps beside its tensors: its options, and numbers of numpy. None of them runs anything.
PLAIN: tuple[Any, ...] = (
    argparse.Namespace,
    np.dtype,
    *(getattr(np.dtypes, name) for name in np.dtypes.__all__ if name.endswith("DType") and not name.startswith("Object")),
    *((np.float64(0).__reduce__()[0], f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")),
)
FOREIGN = re.compile(r"(?:Unsupported global: GLOBAL|Unsupported class|Trying to instantiate) (\S+)")
# torch packs without compressing, and a tensor names each of its numbers once: a small file must not come to fill the memory.
MOST_UNPACKED, ROOM = 4, 64 * 2**20  # times its size, and bytes beyond that


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
        content = load_data(path)
    except pickle.UnpicklingError as error:
        raise _more_than_data(path, error) from None
    except Exception as error:  # of safetensors and pickles many kinds: an unknown dtype, a size beyond 64 bits
        raise _unreadable(path, error) from None
    for key in CONTAINERS:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping) or not all(isinstance(value, Tensor) for value in content.values()):
        raise WeightsError(f"{path}: expected a mapping of names to tensors, found {type(content).__name__}")
    for name, value in content.items():
        check_tensor(path, name, value)
    return _as_written(content)


def _as_written(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors under the names of the network itself, without those of what it was wrapped in to train it."""

    def bare(name: str) -> str:
        for part in COMPILED:
            name = name.replace(part, "")
        return name

    named = {bare(name): value for name, value in tensors.items()}
    return named if len(named) == len(tensors) else dict(tensors)


def _more_than_data(path: Path, error: pickle.UnpicklingError) -> WeightsError:
    found = FOREIGN.search(str(error))
    if found is None:
        return _unreadable(path, error)
    return WeightsError(
        f"{path}: it holds a {shown(found[1])} beside its tensors, which only running its code could read; "
        "save the weights alone: torch.save(model.state_dict(), FILE)"
    )


def load_data(source: Path | IO[bytes]) -> Any:
    """What `torch.save` has written, as far as it is data: tensors in CPU memory, and plain values.

    Raises:
        pickle.UnpicklingError: it wants more than data, and nothing of it was run.
        ValueError: it is damaged, or would unpack to far more than its size. torch itself gives a dozen kinds of errors for that.
    """
    try:
        _check_unpacked(source)
        with torch.serialization.safe_globals(list(PLAIN)):
            return torch.load(source, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise
    except Exception as error:
        raise ValueError(one_line(error) or type(error).__name__) from None


def check_tensor(path: Path, name: object, value: Tensor) -> None:
    """Raise `WeightsError` unless it is numbers in memory under a name: a file may also hold tensors without content, or ones
    that repeat few numbers without end."""
    reason = _objection_to(name, value)
    if reason:
        raise WeightsError(
            f"{path}: {given_value(name)}: {reason}; expected a mapping of names to plain tensors, export it again"
        )


def _objection_to(name: object, value: Tensor) -> str | None:
    if not isinstance(name, str) or not name.isprintable():
        return "no name of a tensor"
    if value.is_nested or value.layout != torch.strided or value.is_quantized or value.device.type != "cpu":
        return f"a tensor of another kind ({value.device.type}, {value.layout})"
    stored = value.untyped_storage().nbytes()
    if value.numel() * value.element_size() > MOST_UNPACKED * stored + ROOM:
        return f"{value.numel()} numbers out of {stored} bytes"
    return None


def _check_unpacked(source: Path | IO[bytes]) -> None:
    try:
        if not zipfile.is_zipfile(source):
            return  # the form before zip files has no packing
        with zipfile.ZipFile(source) as archive:
            members = archive.infolist()
    finally:
        if not isinstance(source, Path):
            source.seek(0)
    unpacked, packed = sum(member.file_size for member in members), sum(member.compress_size for member in members)
    if unpacked > MOST_UNPACKED * packed + ROOM:
        raise ValueError(f"{packed} bytes that unpack to {unpacked}")


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
    except Exception as error:  # as in `read_tensors`
        raise _unreadable(path, error) from None


def _unreadable(path: Path, error: Exception) -> WeightsError:
    reason = one_line(error) or type(error).__name__
    return WeightsError(f"{path}: cannot be read as weights ({reason}); fetch or export it again")


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
