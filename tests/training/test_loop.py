"""The one training loop: exact resuming, and what stops it."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed
from torch import Tensor, nn

from gkd_core.errors import TrainingError
from gkd_core.seeding import generator
from gkd_core.training.checkpoint import FolderStore, State
from gkd_core.training.loop import Training, train
from gkd_core.training.optimization import cosine
from gkd_core.training.rank import Rank

UPDATES = 7


class Regression(nn.Module):
    """A small net with batch statistics, which belong to the state too."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 1))
        self.unused = nn.Parameter(torch.ones(2, 2))

    def forward(self, batch: Tensor) -> dict[str, Tensor]:
        return {"loss": (self.net(batch).squeeze(1) - batch.sum(dim=1)).square().mean()}


class Stop(Exception):
    """Stands for whatever ends a process."""


def training(**changes: Any) -> Training:
    model = Regression()
    settings: dict[str, Any] = {
        "model": model,
        "optimizer": torch.optim.AdamW(model.parameters(), lr=1.0),
        "schedules": [cosine(0.1, 0.01, UPDATES)],
        "batch": lambda update: torch.randn(5, 4, generator=generator("batch", update)),
        "updates": UPDATES,
        "images_per_update": 5,
        "observe": lambda batch: {},
        "log_every": 3,
        "checkpoint_every": 2,
    }
    return Training(**settings | changes)


def run(store: FolderStore, **changes: Any) -> tuple[list[int], list[tuple[int, Mapping[str, float]]]]:
    """Train; gives the updates that were reported as done, and the lines of metrics."""
    done: list[int] = []
    lines: list[tuple[int, Mapping[str, float]]] = []
    train(training(**changes), store, lambda step, values: lines.append((step, values)), done.append)
    return done, lines


def state_of(store: FolderStore) -> State:
    state = store.load()
    assert state is not None
    return copy.deepcopy(state)


def assert_same(first: Any, second: Any) -> None:
    if isinstance(first, Tensor):
        assert torch.equal(first, second)
    elif isinstance(first, Mapping):
        assert first.keys() == second.keys()
        for key in first:
            assert_same(first[key], second[key])
    elif isinstance(first, list | tuple):
        assert len(first) == len(second)
        for one, other in zip(first, second, strict=True):
            assert_same(one, other)
    else:
        assert first == second


@pytest.mark.parametrize("stop_at", range(UPDATES))
def test_a_stopped_training_ends_like_an_undisturbed_one(tmp_path: Path, stop_at: int) -> None:
    whole, broken = FolderStore(tmp_path / "whole"), FolderStore(tmp_path / "broken")
    run(whole)
    usual = training().batch

    def batch(update: int) -> Tensor:
        if update == stop_at:
            raise Stop
        found: Tensor = usual(update)
        return found

    with pytest.raises(Stop):
        run(broken, batch=batch)
    done, _ = run(broken)
    assert done == list(range(stop_at // 2 * 2 + 1, UPDATES + 1))
    assert_same(state_of(broken), state_of(whole))


def test_a_finished_training_is_not_touched_again(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    run(store)
    before = store.path.read_bytes()
    assert run(store) == ([], [])
    assert store.path.read_bytes() == before


def test_no_updates_still_leave_a_state(tmp_path: Path) -> None:
    run(FolderStore(tmp_path), updates=0)
    state = state_of(FolderStore(tmp_path))
    assert state["step"] == 0
    assert_same(state["model"], Regression().state_dict())


def test_training_learns_and_logs_what_it_says(tmp_path: Path) -> None:
    _, lines = run(FolderStore(tmp_path), observe=lambda batch: {"size": float(len(batch))})
    assert [step for step, _ in lines] == [3, 6, 7]
    assert {"loss", "size", "lr", "images_per_second", "waiting_share"} <= lines[0][1].keys()
    assert lines[0][1]["size"] == 5
    assert lines[0][1]["lr"] == cosine(0.1, 0.01, UPDATES)(2)
    _, lines = run(FolderStore(tmp_path / "longer"), updates=300, schedules=[cosine(0.1, 0.01, 300)])
    assert lines[-1][1]["loss"] < 0.5 * lines[0][1]["loss"]


def test_rank_0_alone_logs_but_every_rank_saves(tmp_path: Path) -> None:
    """Saving is a barrier for some stores, so no rank may skip it."""
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    try:
        done, lines = run(FolderStore(tmp_path), rank=Rank(1, 2))
    finally:
        torch.distributed.destroy_process_group()
    assert (done, lines) == ([], [])
    assert state_of(FolderStore(tmp_path))["step"] == UPDATES


@pytest.fixture
def process_group() -> Iterator[None]:
    """A group of one process: enough for DistributedDataParallel to work, and to complain."""
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.usefixtures("process_group")
def test_parameters_without_a_part_in_the_loss_are_allowed_among_workers(tmp_path: Path) -> None:
    """A mask token without masked views, or a CNN's stages beyond its tokens. With one process the result is the lone one's."""
    run(FolderStore(tmp_path / "alone"))
    run(FolderStore(tmp_path / "workers"), rank=Rank(0, 2))
    assert_same(state_of(FolderStore(tmp_path / "workers")), state_of(FolderStore(tmp_path / "alone")))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_names_its_update(tmp_path: Path, value: float) -> None:
    store = FolderStore(tmp_path)

    def batch(update: int) -> Tensor:
        return torch.full((5, 4), value) if update == 4 else torch.randn(5, 4, generator=generator("batch", update))

    with pytest.raises(TrainingError, match="the loss is nan at update 5 of 7"):
        run(store, batch=batch)
    state = state_of(store)
    assert state["step"] == 4
    assert all(tensor.isfinite().all() for tensor in state["model"].values())


class SpoilingOptimizer(torch.optim.SGD):
    """A step that overflows although its gradient, and the loss before it, are finite."""

    def step(self, closure: Any = None) -> None:
        with torch.no_grad():
            self.param_groups[0]["params"][0].fill_(float("inf"))


def test_spoilt_weights_never_become_a_checkpoint(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    model = Regression()
    with pytest.raises(TrainingError, match=r"not finite after update 1 of 7 \(first "):
        run(store, model=model, optimizer=SpoilingOptimizer(model.parameters(), lr=1.0), checkpoint_every=1)
    assert store.load() is None


def test_gradients_are_clipped_to_the_norm(tmp_path: Path) -> None:
    """With plain gradient descent at rate 1 a step is exactly as long as its gradient."""
    model = Regression()
    before = torch.cat([p.detach().flatten().clone() for p in model.parameters()])
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    run(FolderStore(tmp_path), model=model, optimizer=optimizer, schedules=[lambda update: 1.0], updates=1, clip_norm=0.01)
    after = torch.cat([p.detach().flatten() for p in model.parameters()])
    assert (after - before).norm().item() == pytest.approx(0.01, rel=1e-3)


def test_a_checkpoint_of_another_model_is_refused(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    run(store)
    other = nn.Linear(2, 2)
    with pytest.raises(TrainingError, match="the checkpoint at update 7 does not fit this model"):
        run(store, model=other, optimizer=torch.optim.AdamW(other.parameters()))
