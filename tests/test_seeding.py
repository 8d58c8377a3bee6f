"""Random streams as functions of their keys."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from gkd_core.seeding import generator, seed_of, seeded_globals


def test_seeds_are_the_same_in_every_process_and_release() -> None:
    assert seed_of("views", 0, 1) == 862135379289012005
    assert len({seed_of("a", index) for index in range(1000)}) == 1000
    assert all(0 <= seed_of("a", index) < 2**63 for index in range(1000))


def test_generators_leave_the_global_state_alone() -> None:
    torch.manual_seed(0)
    expected = torch.rand(2)
    torch.manual_seed(0)
    first = torch.rand(3, generator=generator("a", 1))
    assert torch.equal(torch.rand(2), expected)
    assert torch.equal(first, torch.rand(3, generator=generator("a", 1)))
    assert not torch.equal(first, torch.rand(3, generator=generator("a", 2)))


def test_global_streams_are_seeded_for_a_block_and_put_back() -> None:
    def draws() -> tuple[float, float, float]:
        return random.random(), float(np.random.random()), float(torch.rand(()))

    def seeded(*keys: int | str) -> tuple[float, float, float]:
        with seeded_globals(*keys):
            return draws()

    random.seed(0), np.random.seed(0), torch.manual_seed(0)
    expected = draws()
    random.seed(0), np.random.seed(0), torch.manual_seed(0)
    first = seeded("a", 1)
    assert draws() == expected
    assert seeded("a", 1) == first
    assert all(one != other for one, other in zip(seeded("a", 2), first, strict=True))
    random.seed(0), np.random.seed(0), torch.manual_seed(0)
    with pytest.raises(KeyError), seeded_globals("a"):
        raise KeyError
    assert draws() == expected, "after an error too"
