"""What the published recipe adds to the training loop: parts of a batch, a moving average, number formats, loaders."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed
from torch import Tensor, nn

from gkd_core.errors import TrainingError
from gkd_core.seeding import generator
from gkd_core.settings import Precision
from gkd_core.training.checkpoint import FolderStore, State
from gkd_core.training.loop import MOST_SKIPS, Training, train
from gkd_core.training.optimization import cosine
from gkd_core.training.rank import Rank

UPDATES = 6


class Stop(Exception):
    """Stands for whatever ends a process."""


class Dropping(nn.Module):
    """A regression with dropout, so that every update draws; without batch statistics, so that a batch may be cut."""

    def __init__(self, dropout: float = 0.2) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Dropout(dropout), nn.Linear(16, 1))

    def forward(self, batch: Tensor) -> dict[str, Tensor]:
        return {"loss": (self.net(batch).squeeze(1).float() - batch.sum(dim=1)).square().mean()}


def batch(update: int) -> Tensor:
    return torch.randn(8, 4, generator=generator("batch", update))


def run(folder: Path, model: nn.Module | None = None, **changes: Any) -> State:
    """Train; gives the end state."""
    model = model or Dropping()
    settings: dict[str, Any] = {
        "model": model, "optimizer": torch.optim.AdamW(model.parameters()), "schedules": [cosine(0.1, 0.01, UPDATES)],
        "batch": batch, "updates": UPDATES, "images_per_update": 8, "observe": lambda batch: {},
        "log_every": 1, "checkpoint_every": 2, "seed": 3,
    }  # fmt: skip
    lines: list[Any] = []
    store = FolderStore(folder)
    train(Training(**settings | changes), store, lambda step, values: lines.append(values), lambda done: None)
    state = store.load()
    assert state is not None
    return state | {"lines": lines}


def same(first: State, second: State, *parts: str) -> bool:
    return all(
        torch.equal(first[part][name], second[part][name]) if isinstance(value, Tensor) else first[part][name] == value
        for part in parts
        for name, value in second[part].items()
    )


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("stop_at", [1, 3, 4])
def test_a_stopped_training_ends_like_an_undisturbed_one(tmp_path: Path, precision: Precision, stop_at: int) -> None:
    """Dropout, the scale and the moving average included."""
    changes = {"precision": precision, "ema_decay": 0.9, "accumulate": 2, "clip_norm": 1.0}
    whole = run(tmp_path / "whole", **changes)

    def broken(update: int) -> Tensor:
        if update == stop_at:
            raise Stop
        return batch(update)

    with pytest.raises(Stop):
        run(tmp_path / "broken", batch=broken, **changes)
    torch.rand(5)
    again = run(tmp_path / "broken", **changes)
    assert same(whole, again, "model", "ema", "scaler")
    assert not same(whole, run(tmp_path / "other", **changes | {"seed": 4}), "model"), "dropout has the seed's own draws"


def test_parts_of_a_batch_have_its_gradient(tmp_path: Path) -> None:
    """With plain gradient descent at rate 1 the step is the gradient."""

    def step(accumulate: int) -> State:
        model = Dropping(dropout=0.0)
        optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
        changes: dict[str, Any] = {"optimizer": optimizer, "schedules": [lambda update: 1.0], "updates": 1}
        return run(tmp_path / str(accumulate), model, accumulate=accumulate, **changes)

    whole, parts = step(1), step(4)
    for name, tensor in whole["model"].items():
        torch.testing.assert_close(parts["model"][name], tensor, atol=1e-6, rtol=1e-5)
        assert not torch.equal(tensor, Dropping().state_dict()[name])
    assert parts["lines"][0]["loss"] == pytest.approx(whole["lines"][0]["loss"])


def test_workers_exchange_gradients_once_an_update(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of three parts, two are passed without exchange; with one process the result is the lone one's."""
    counted: list[int] = []
    usual = torch.nn.parallel.DistributedDataParallel.no_sync
    monkeypatch.setattr(torch.nn.parallel.DistributedDataParallel, "no_sync", lambda self: (counted.append(1), usual(self))[1])
    alone = run(tmp_path / "alone", Dropping(0.0), accumulate=4)
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    try:
        among = run(tmp_path / "among", Dropping(0.0), accumulate=4, rank=Rank(0, 2))
    finally:
        torch.distributed.destroy_process_group()
    assert len(counted) == 3 * UPDATES
    assert same(alone, among, "model")


def test_the_moving_average_is_what_it_says(tmp_path: Path) -> None:
    model = Dropping()
    average = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    state = run(tmp_path / "whole", model, ema_decay=0.8)
    for updates in range(1, UPDATES + 1):
        # A run that ends early on the same schedule passes through the same weights.
        passed = run(tmp_path / str(updates), updates=updates)
        average = {name: 0.8 * tensor + 0.2 * passed["model"][name] for name, tensor in average.items()}
    for name, tensor in state["ema"].items():
        torch.testing.assert_close(tensor, average[name])
    assert same(state, passed, "model"), "it takes no part in training"
    assert "ema" not in passed


def test_any_number_of_loaders_ends_in_the_same_state(tmp_path: Path) -> None:
    here, ahead = run(tmp_path / "here"), run(tmp_path / "ahead", loaders=2)
    assert same(here, ahead, "model")


def test_the_time_that_training_waits_is_for_batches_alone(tmp_path: Path) -> None:
    def slow(value: Any) -> Any:
        time.sleep(0.1)
        return value

    waiting = run(tmp_path / "waiting", batch=lambda update: slow(batch(update)))["lines"][-1]["waiting_share"]
    busy = run(tmp_path / "busy", prepare=slow)["lines"][-1]["waiting_share"]
    assert waiting > 0.5
    assert busy < 0.3


def test_a_loss_that_is_not_finite_names_files_and_checkpoint(tmp_path: Path) -> None:
    def files(update: int) -> list[Path]:
        return [Path(f"{update}-{index}.png") for index in range(8)]

    def spoilt(update: int) -> Tensor:
        return batch(update) * (float("inf") if update == 3 else 1)

    with pytest.raises(TrainingError) as error:
        run(tmp_path, batch=spoilt, files_of=files)
    text = str(error.value)
    assert "\n" not in text
    assert "the loss is nan at update 4 of 6" in text
    assert "its batch: 3-0.png, 3-1.png, 3-2.png and 5 more" in text
    assert f"last good checkpoint: of update 2, in {tmp_path / 'training.pt'}" in text
    with pytest.raises(TrainingError, match="last good checkpoint: none yet"):
        run(tmp_path / "new", batch=lambda update: batch(update) * float("nan"))


class Overflowing(Dropping):
    """A loss whose gradient overflows once it is scaled, however small the scale."""

    def forward(self, batch: Tensor) -> dict[str, Tensor]:
        loss = super().forward(batch)["loss"]
        return {"loss": loss + (loss - loss.detach()).sqrt()}


def test_gradients_that_overflow_in_fp16_are_left_out_until_they_are_too_many(tmp_path: Path) -> None:
    state = run(tmp_path / "few", Overflowing(), precision="fp16")
    assert state["scaler"]["skips"] == UPDATES
    assert same(state, {"model": Dropping().state_dict()}, "model"), "nothing was learnt, and nothing spoilt"
    with pytest.raises(TrainingError, match=rf"overflowed in fp16 in {MOST_SKIPS + 1} updates on end, up to update 25 of 40"):
        run(tmp_path / "many", Overflowing(), precision="fp16", updates=40)
