"""Batches made ahead of their use, by processes of their own."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Generator, Iterable
from typing import Any

from torch.utils.data import DataLoader, Dataset

from gkd_core.errors import GkdError, PlatformError
from gkd_core.messages import one_line

MakeBatch = Callable[[int], Any]


class _Updates(Dataset[Any]):
    """Batches by update; an error that a user can correct travels as a value, since a loader would wrap it in its own."""

    def __init__(self, make: MakeBatch) -> None:
        self._make = make

    def __getitem__(self, update: int) -> Any:
        try:
            return self._make(update)
        except GkdError as error:
            return error


def batches_ahead(make: MakeBatch, updates: Iterable[int], loaders: int, pinned: bool) -> Generator[Any]:
    """`make(update)` for each update in order, made by `loaders` processes ahead of use, or here as they come (0).

    A batch is a pure function of its update, so any number of loaders gives the same ones. `pinned` batches lie in
    page-locked memory, from where a GPU copies them without waiting.

    Raises:
        GkdError: what `make` raised.
        PlatformError: a loader process ended on its own.
    """
    if loaders == 0:
        yield from map(make, updates)
        return
    # By name, as Python 3.14 starts processes otherwise: what makes batches holds open shards, and is not to be pickled.
    fork = multiprocessing.get_context("fork")
    loader = DataLoader(
        _Updates(make), batch_size=None, sampler=updates, num_workers=loaders, pin_memory=pinned, multiprocessing_context=fork
    )
    try:
        for batch in loader:
            if isinstance(batch, GkdError):
                raise batch
            yield batch
    except RuntimeError as error:
        if not str(error).startswith("DataLoader worker (pid"):
            raise
        reason = one_line(error, 120)
        raise PlatformError(
            f"compute.loaders: a process that makes batches has ended ({reason}); it may have run out of memory: use fewer"
        ) from None
