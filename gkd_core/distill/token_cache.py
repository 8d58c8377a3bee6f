"""The teacher's tokens of fixed views, computed once and kept in a memory-mapped file of the run folder."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import socket
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gkd_core.data.files.blobs import DataFile, identity
from gkd_core.errors import PlatformError
from gkd_core.notes import clear_file, clear_folder, remove
from gkd_core.training.rank import Rank

FOLDER = "teacher-tokens"
AGAIN = "the teacher's tokens are computed again"
LOG = logging.getLogger(__name__)
BLOCK = 32  # views whose tokens are computed in one pass, always the same ones together, so that their bits never vary


class TokenCache:
    """Tokens of the first views, by number, as many as fit into `limit` bytes; each entry is (N + 1, C), cls first.

    The file is named by the digest of what the tokens follow from and by the machine; files of other digests are removed.
    All ranks of one machine share it: a block is written, and only then marked as done by its digest, by whichever rank comes to
    it first. Two that meet write the same bytes. Blocks that are done outlast a stopped run; those that do not fit their digest
    by then are damaged, and are computed again.

    Raises:
        PlatformError: there is no room for the file.
    """

    def __init__(self, folder: Path, digest: str, views: int, shape: tuple[int, int], dtype: torch.dtype, limit: int) -> None:
        entry = shape[0] * shape[1] * dtype.itemsize
        # Whole blocks, or all: a block cut short by the bound would pass for done under a larger one.
        self.views = min(views, limit // entry // BLOCK * BLOCK)
        self.blocks = -(-self.views // BLOCK)
        name = f"{digest}-{socket.gethostname()}"
        clear_folder(folder, AGAIN)
        folder.mkdir(parents=True, exist_ok=True)
        for stale in folder.iterdir():
            if not stale.name.startswith(digest):
                remove(stale)
        self._path = folder / f"{name}.tokens"
        self._tokens = _mapped(self._path, self.views * shape[0] * shape[1], dtype).view(self.views, *shape)
        self._done = _mapped(folder / f"{name}.digests", self.blocks, torch.int64)
        self._forget_damaged()

    @property
    def done(self) -> int:
        """Blocks that are done."""
        return int((self._done != 0).sum())

    def missing(self, rank: Rank) -> Iterator[int]:
        """Blocks that are not done by the time they are asked for, in an order in which ranks start far from each other."""
        first = rank.index * self.blocks // rank.count
        return (block for block in (*range(first, self.blocks), *range(first)) if not self._done[block])

    def block(self, number: int) -> range:
        """Numbers of the views of a block."""
        return range(number * BLOCK, min(self.views, (number + 1) * BLOCK))

    def write(self, number: int, tokens: Tensor) -> None:
        """Keep the tokens (views of the block, N + 1, C) of a block."""
        views = self.block(number)
        self._tokens[views.start : views.stop] = tokens.to("cpu", self._tokens.dtype)
        with self._path.open("rb") as stream:
            os.fsync(stream.fileno())  # the mark must not reach the disk before what it vouches for
        self._done[number] = self._digest(number)

    def read(self, slots: Tensor) -> Tensor:
        """Tokens (B, N + 1, C) of views by number, all of them below `views`."""
        return self._tokens[slots]

    def _digest(self, number: int) -> int:
        """Digest of a block's tokens as they lie in the file; never 0, which stands for a block that is not done."""
        views = self.block(number)
        content = self._tokens[views.start : views.stop].flatten().view(torch.uint8).numpy().tobytes()
        return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "little", signed=True) or 1

    def _forget_damaged(self) -> None:
        """Mark as not done what does not fit its digest."""
        wrong = [number for number in torch.nonzero(self._done).flatten().tolist() if self._done[number] != self._digest(number)]
        if wrong:
            self._done[wrong] = 0
            LOG.warning("%s: %d of %d blocks are damaged; %s", self._path, len(wrong), self.blocks, AGAIN)


def digest_of(teacher: nn.Module, images: Sequence[DataFile], facts: Mapping[str, Any]) -> str:
    """Digest of the teacher's weights, the image files (path, size, time of change) and further facts."""
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    for name, tensor in teacher.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    for image in images:
        digest.update(f"{identity(image)}\n".encode())
    return digest.hexdigest()[:16]


def discard(run_folder: Path) -> None:
    """Remove the cache of a finished run."""
    shutil.rmtree(run_folder / FOLDER, ignore_errors=True)


def _mapped(path: Path, count: int, dtype: torch.dtype) -> Tensor:
    """A file of zeros, or what it held before, as a tensor that writes through to it."""
    size = max(1, count) * dtype.itemsize
    clear_file(path, AGAIN)
    try:
        with path.open("ab") as stream:
            # Reserved now: a full disk would otherwise end the process, without a word, at some later write.
            os.posix_fallocate(stream.fileno(), 0, size)
    except OSError as error:
        raise PlatformError(
            f"{path}: no room for {size} bytes ({error.strerror}); lower compute.teacher_cache_bytes (0 keeps nothing)"
        ) from None
    return torch.from_file(str(path), shared=True, size=max(1, count), dtype=dtype)[:count]
