"""Batches made ahead by other processes: the same ones, and what goes wrong there told as if it had happened here."""

from __future__ import annotations

import os
import signal

import pytest
import torch
from torch import Tensor

from gkd_core.data.order.loader import batches_ahead
from gkd_core.errors import DataError, PlatformError
from gkd_core.seeding import generator


def make(update: int) -> tuple[int, Tensor]:
    return update, torch.rand(3, generator=generator("batch", update))


@pytest.mark.parametrize("loaders", [0, 1, 2])
def test_any_number_of_loaders_gives_the_same_batches_in_order(loaders: int) -> None:
    found = list(batches_ahead(make, range(3, 9), loaders, pinned=False))
    assert [update for update, _ in found] == [3, 4, 5, 6, 7, 8]
    assert all(torch.equal(batch, make(update)[1]) for update, batch in found)


def test_batches_are_made_elsewhere_and_ahead() -> None:
    processes = list(batches_ahead(lambda update: os.getpid(), range(4), 2, pinned=False))
    assert os.getpid() not in processes
    assert len(set(processes)) == 2


@pytest.mark.parametrize("loaders", [0, 2])
def test_an_unreadable_image_is_named_in_one_line(loaders: int) -> None:
    def fail(update: int) -> None:
        if update == 2:
            raise DataError("x.png: no such file")

    batches = batches_ahead(fail, range(4), loaders, pinned=False)
    assert [next(batches), next(batches)] == [None, None]
    with pytest.raises(DataError, match=r"^x\.png: no such file$"):
        next(batches)


def test_a_killed_loader_is_named() -> None:
    def die(update: int) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    with pytest.raises(PlatformError, match=r"compute\.loaders: a process that makes batches has ended") as error:
        next(batches_ahead(die, range(4), 1, pinned=False))
    assert "\n" not in str(error.value)


def test_a_mistake_of_ours_keeps_its_own_kind() -> None:
    def wrong(update: int) -> float:
        return 1 / update

    with pytest.raises(ZeroDivisionError):
        next(batches_ahead(wrong, range(4), 1, pinned=False))
