"""The one training loop, for both stages. It knows nothing of Ray, MLflow or what is being learnt."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from gkd_core.errors import TrainingError
from gkd_core.training.checkpoint import CheckpointStore, State
from gkd_core.training.metrics import MetricsSink
from gkd_core.training.schedule import Schedule


@dataclass(frozen=True)
class Rank:
    """This process among those that train together."""

    index: int = 0
    count: int = 1


@dataclass
class Training:
    """One training: what is learnt, from which batches, and by which optimizer.

    Attributes:
        model: its forward pass turns a batch into losses by name, of which `loss` is minimised.
        batch: the batch of an update; a pure function of the update, which is what makes resuming exact.
        observe: further figures to log, from a batch.
        schedules: learning rate of each optimizer group.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    schedules: list[Schedule]
    batch: Callable[[int], Any]
    updates: int
    images_per_update: int
    observe: Callable[[Any], dict[str, float]]
    clip_norm: float | None = None
    log_every: int = 50
    checkpoint_every: int = 1000
    rank: Rank = field(default_factory=Rank)


def train(training: Training, store: CheckpointStore, sink: MetricsSink, advance: Callable[[int], None]) -> None:
    """Train to the last update, from the newest checkpoint where there is one; the end state is in the store afterwards.

    Raises:
        TrainingError: the loss is not finite, or the checkpoint does not fit the model.
    """
    start = _resume(training, store)
    # Some parameters take no part in some updates: a mask token without a masked view, a CNN's stages beyond its tokens.
    forward = DistributedDataParallel(training.model, find_unused_parameters=True) if training.rank.count > 1 else training.model
    clock = _Clock(training.images_per_update)
    for update in range(start, training.updates):
        for group, rate in zip(training.optimizer.param_groups, training.schedules, strict=True):
            group["lr"] = rate(update)
        began = time.perf_counter()
        batch = training.batch(update)
        clock.waited(time.perf_counter() - began)
        losses = forward(batch)
        _learn(training, losses, update)
        clock.tick()
        done = update + 1
        if training.rank.index == 0:
            advance(done)
            if done % training.log_every == 0 or done == training.updates:
                sink(done, {**_scalars(losses), **training.observe(batch), "lr": training.schedules[0](update), **clock.report()})
        if done % training.checkpoint_every == 0 or done == training.updates:
            store.save(_finite_state(training, done))
    if start == 0 == training.updates:
        store.save(_state(training, 0))


def _learn(training: Training, losses: Mapping[str, Tensor], update: int) -> None:
    loss = losses["loss"]
    if not math.isfinite(loss.item()):
        raise TrainingError(
            f"the loss is {loss.item()} at update {update + 1} of {training.updates}; the last checkpoint is from before it: "
            f"lower the learning rate or set clip_norm, and run again"
        )
    training.optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    if training.clip_norm is not None:
        nn.utils.clip_grad_norm_(training.model.parameters(), training.clip_norm)
    training.optimizer.step()


def _resume(training: Training, store: CheckpointStore) -> int:
    state = store.load()
    if state is None:
        return 0
    try:
        training.model.load_state_dict(state["model"])
        training.optimizer.load_state_dict(state["optimizer"])
    except (RuntimeError, ValueError, KeyError) as error:
        raise TrainingError(
            f"the checkpoint at update {state['step']} does not fit this model ({' '.join(str(error).split())[:160]})"
        ) from None
    return int(state["step"])


def _finite_state(training: Training, step: int) -> State:
    """The state after a step, which may have spoilt the weights although the loss before it was finite."""
    state = _state(training, step)
    spoilt = [name for name, tensor in state["model"].items() if not bool(tensor.isfinite().all())]
    if spoilt:
        raise TrainingError(
            f"the weights are not finite after update {step} of {training.updates} (first {spoilt[0]}); the last checkpoint is "
            f"from before it: lower the learning rate or set clip_norm, and run again"
        )
    return state


def _state(training: Training, step: int) -> State:
    return {"step": step, "model": training.model.state_dict(), "optimizer": training.optimizer.state_dict()}


def _scalars(losses: Mapping[str, Tensor]) -> dict[str, float]:
    return {name: value.detach().item() for name, value in losses.items()}


class _Clock:
    """Speed since the last report, and the share of time that training waited for its batch."""

    def __init__(self, images_per_update: int) -> None:
        self._images = images_per_update
        self._reset()

    def _reset(self) -> None:
        self._began = time.perf_counter()
        self._updates = 0
        self._waiting = 0.0

    def waited(self, seconds: float) -> None:
        self._waiting += seconds

    def tick(self) -> None:
        self._updates += 1

    def report(self) -> dict[str, float]:
        elapsed = max(time.perf_counter() - self._began, 1e-9)
        values = {"images_per_second": self._updates * self._images / elapsed, "waiting_share": self._waiting / elapsed}
        self._reset()
        return values
