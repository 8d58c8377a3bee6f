"""Random streams as functions of their keys."""

from __future__ import annotations

import torch

from gkd_core.seeding import generator, seed_of


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
