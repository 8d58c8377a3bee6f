"""Checkpoints of a running training: where they are kept, and how they are read back."""

from __future__ import annotations

import hashlib
import io
import pickle
from pathlib import Path
from typing import IO, Any, Protocol

import torch

from gkd_core.errors import TrainingError
from gkd_core.files import atomic_file
from gkd_core.messages import one_line
from gkd_core.models.tensor_files import load_data

State = dict[str, Any]
FILE = "training.pt"
# Before what torch writes stands a line with its SHA-256: torch itself would take flipped bits for weights. States of versions
# before this one begin with torch's own bytes, and are read as they are.
HEADER = b"gkd-state-1 "
HEADER_SIZE = len(HEADER) + 64 + 1
ZIP = b"PK"


class CheckpointStore(Protocol):
    """A place for the newest state of one training. All ranks load; only rank 0's save is kept.

    Attributes:
        place: where a person finds the newest state: a path.
    """

    place: str

    def load(self) -> State | None:
        """The newest state, or None where there is none yet."""

    def save(self, state: State) -> None:
        """Keep this state as the newest."""


class FolderStore:
    """Keeps the newest state as one file in a folder."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / FILE
        self.place = str(self.path)

    def load(self) -> State | None:
        return read_state(self.path) if self.path.exists() else None

    def save(self, state: State) -> None:
        write_state(state, self.path)


def is_checkpoint(done: int, every: int, updates: int) -> bool:
    """Whether the state is saved after so many updates: all processes of a training must agree on it."""
    return done % every == 0 or done == updates


def write_state(state: State, path: Path) -> None:
    """Write a training state atomically.

    Raises:
        OSError: the disk is full, or the folder cannot be written to.
    """
    try:
        with atomic_file(path) as temporary, temporary.open("wb") as stream:
            stream.write(bytes(HEADER_SIZE))
            body = _Hashing(stream)
            torch.save(state, body)  # type: ignore[arg-type]  # all that it asks of a stream is `write`
            stream.seek(0)
            stream.write(HEADER + body.digest.hexdigest().encode() + b"\n")
    except RuntimeError as error:
        # What a full disk says lies below what torch makes of it ("unexpected pos").
        if isinstance(error.__context__, OSError):
            raise error.__context__ from None
        raise


def read_state(path: Path) -> State:
    """Read a training state back: tensors and plain values only.

    Raises:
        TrainingError: the file is damaged or is not a training state.
    """
    try:
        state = load_data(io.BytesIO(_body(path)))
    except (OSError, ValueError, pickle.UnpicklingError) as error:
        raise TrainingError(
            f"{path}: not a readable checkpoint ({one_line(error, 160)}); delete it to start this stage over"
        ) from None
    if not isinstance(state, dict) or not {"step", "model", "optimizer"} <= state.keys():
        raise TrainingError(f"{path}: not a checkpoint of this program; delete it to start this stage over")
    return state


def _body(path: Path) -> bytes:
    """What torch wrote, held against the digest before it."""
    content = path.read_bytes()
    if content.startswith(ZIP):
        return content
    header, body = content[:HEADER_SIZE], content[HEADER_SIZE:]
    if header != HEADER + hashlib.sha256(body).hexdigest().encode() + b"\n":
        raise ValueError("its content is not what was written: another digest")
    return body


class _Hashing(io.RawIOBase):
    """A stream for writing that keeps the digest of what passes."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self.digest = hashlib.sha256()

    def write(self, data: Any) -> int:
        self.digest.update(data)
        return self._stream.write(data)

    def writable(self) -> bool:
        return True
