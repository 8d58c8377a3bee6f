"""The one training loop, for both stages. It knows nothing of Ray, MLflow or what is being learnt."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from timm.utils.model_ema import ModelEmaV3
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from gkd_core.data.files.blobs import DataFile
from gkd_core.data.order.loader import batches_ahead
from gkd_core.errors import TrainingError
from gkd_core.messages import one_line
from gkd_core.seeding import seed_of
from gkd_core.settings import Precision
from gkd_core.training.checkpoint import CheckpointStore, State, is_checkpoint
from gkd_core.training.metrics import MetricsSink
from gkd_core.training.micro_batches import cut
from gkd_core.training.optimization import Schedule
from gkd_core.training.precision import GradientScaler, autocast
from gkd_core.training.rank import Rank

# fp16 updates left out in a row before a training is given up: from the first scale, 2 ** 16, so many halvings leave nothing
# that a sound training could overflow with.
MOST_SKIPS = 24
FILES_NAMED = 3
ADVICE = "lower the learning rate or set clip_norm, and run again"


@dataclass
class Training:
    """One training: what is learnt, from which batches, and by which optimizer.

    Attributes:
        model: its forward pass turns a batch into losses by name, of which `loss` is minimised.
        batch: the batch of an update; a pure function of the update, which is what makes resuming exact.
        prepare: what this process does to a batch before it learns from it: copy it to the device, ask a teacher.
        observe: further figures to log, from a prepared batch.
        schedules: learning rate of each optimizer group.
        seed: of dropout, drop path and whatever else draws from torch's global stream in an update.
        precision: number format of the passes; the optimizer's is float32.
        accumulate: parts that a batch is cut into for one update, whose mean loss is the batch's.
        ema_decay: decay of the weights' moving average, or None for none.
        loaders: processes that make batches ahead of use.
        files_of: the files behind an update's batch, to name when its loss is not finite.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    schedules: list[Schedule]
    batch: Callable[[int], Any]
    updates: int
    images_per_update: int
    observe: Callable[[Any], dict[str, float]]
    prepare: Callable[[Any], Any] = lambda batch: batch
    clip_norm: float | None = None
    log_every: int = 50
    checkpoint_every: int = 1000
    rank: Rank = field(default_factory=Rank)
    seed: int = 0
    precision: Precision = "fp32"
    accumulate: int = 1
    ema_decay: float | None = None
    loaders: int = 0
    files_of: Callable[[int], Sequence[DataFile]] | None = None


def train(training: Training, store: CheckpointStore, sink: MetricsSink, advance: Callable[[int], None]) -> None:
    """Train to the last update, from the newest checkpoint where there is one; the end state is in the store afterwards.

    Raises:
        TrainingError: the loss is not finite, or the checkpoint does not fit the model.
    """
    learner = _Learner(training, store)
    start = learner.resume()
    clock = _Clock(training.images_per_update)
    ahead = batches_ahead(training.batch, range(start, training.updates), training.loaders, pinned=learner.device.type == "cuda")
    with closing(ahead):
        for update, made in enumerate(clock.awaited(ahead), start):
            batch = training.prepare(made)
            losses = learner.learn(batch, update)
            clock.tick()
            done = update + 1
            if training.rank.index == 0:
                advance(done)
                if done % training.log_every == 0 or done == training.updates:
                    figures = {**training.observe(batch), "lr": training.schedules[0](update), **clock.report()}
                    sink(done, {**_scalars(losses), **figures})
            if is_checkpoint(done, training.checkpoint_every, training.updates):
                learner.save(done)
    if start == 0 == training.updates:
        learner.save(0)


def exchanging(model: nn.Module, group: Any = None) -> DistributedDataParallel:
    """The model, its gradients averaged with those of the other workers of torch's process group (None: of all)."""
    # Some parameters take no part in some updates: a mask token without a masked view, stages beyond a CNN's tokens.
    return DistributedDataParallel(model, process_group=group, find_unused_parameters=True)


class _Learner:
    """What changes from update to update: weights, optimizer, scaler and moving average; and their way to the store."""

    def __init__(self, training: Training, store: CheckpointStore) -> None:
        self._training, self._store = training, store
        self.device = next(training.model.parameters()).device
        self._scaler = GradientScaler(self.device, training.precision)
        self._average = None if training.ema_decay is None else ModelEmaV3(training.model, decay=training.ema_decay)
        self._saved: int | None = None
        self._forward = training.model

    def resume(self) -> int:
        """Take up the newest checkpoint; gives the number of updates that it has behind it."""
        training, state = self._training, self._store.load()
        if state is not None:
            try:
                training.model.load_state_dict(state["model"])
                training.optimizer.load_state_dict(state["optimizer"])
                self._scaler.load_state_dict(state["scaler"])
                if self._average is not None:
                    self._average.module.load_state_dict(state["ema"])
            except (RuntimeError, ValueError, KeyError) as error:
                raise TrainingError(
                    f"the checkpoint at update {state['step']} does not fit this model ({one_line(error, 160)})"
                ) from None
            self._saved = int(state["step"])
        if training.rank.count > 1:
            self._forward = exchanging(training.model, training.rank.group)
        return self._saved or 0

    def learn(self, batch: Any, update: int) -> dict[str, Tensor]:
        """One update; gives its losses, the means over the parts of the batch."""
        training = self._training
        torch.manual_seed(seed_of("update", training.seed, update, training.rank.index))
        for group, rate in zip(training.optimizer.param_groups, training.schedules, strict=True):
            group["lr"] = rate(update)
        training.optimizer.zero_grad(set_to_none=True)
        losses: dict[str, Tensor] = {}
        parts = cut(batch, training.accumulate)
        for number, part in enumerate(parts, 1):
            with self._gradients_kept(until_last=number < len(parts)):
                for name, value in self._backward(part, update, len(parts)).items():
                    losses[name] = losses[name] + value if name in losses else value
        if training.clip_norm is not None:
            self._scaler.unscale(training.optimizer)
            nn.utils.clip_grad_norm_(training.model.parameters(), training.clip_norm)
        self._scaler.step(training.optimizer)
        if self._scaler.skips > MOST_SKIPS:
            raise self._failure(f"gradients overflowed in fp16 in {self._scaler.skips} updates on end, up to", update)
        if self._average is not None:
            self._average.update(training.model)
        return losses

    def save(self, step: int) -> None:
        """Keep the state after a step, which may have spoilt the weights although the loss before it was finite."""
        training = self._training
        state: State = {
            "step": step,
            "model": training.model.state_dict(),
            "optimizer": training.optimizer.state_dict(),
            "scaler": self._scaler.state_dict(),
        }
        if self._average is not None:
            state["ema"] = self._average.module.state_dict()
        spoilt = [name for name, tensor in state["model"].items() if not bool(tensor.isfinite().all())]
        if spoilt:
            raise self._failure("the weights are not finite after", step - 1, f" (first {spoilt[0]})")
        self._store.save(state)
        self._saved = step

    def _backward(self, part: Any, update: int, parts: int) -> dict[str, Tensor]:
        with autocast(self.device, self._training.precision):
            losses = self._forward(part)
        loss = losses["loss"].float()
        if not math.isfinite(loss.item()):
            raise self._failure(f"the loss is {loss.item()} at", update)
        self._scaler.scale(loss / parts).backward()  # type: ignore[no-untyped-call]
        return {name: value.detach().float() / parts for name, value in losses.items()}

    def _gradients_kept(self, until_last: bool) -> AbstractContextManager[Any]:
        """Among workers, gradients are exchanged once an update: with its last part."""
        if until_last and isinstance(self._forward, DistributedDataParallel):
            return self._forward.no_sync()
        return nullcontext()

    def _failure(self, what: str, update: int, detail: str = "") -> TrainingError:
        files = list(self._training.files_of(update)) if self._training.files_of else []
        more = f" and {len(files) - FILES_NAMED} more" if len(files) > FILES_NAMED else ""
        batch = f"; its batch: {', '.join(map(str, files[:FILES_NAMED]))}{more}" if files else ""
        saved = f"of update {self._saved}, in {self._store.place}" if self._saved else "none yet"
        return TrainingError(
            f"{what} update {update + 1} of {self._training.updates}{detail}{batch}; last good checkpoint: {saved}; {ADVICE}"
        )


def _scalars(losses: Mapping[str, Tensor]) -> dict[str, float]:
    return {name: value.item() for name, value in losses.items()}


class _Clock:
    """Speed since the last report, and the share of time that training waited for its batch."""

    def __init__(self, images_per_update: int) -> None:
        self._images = images_per_update
        self._reset()

    def _reset(self) -> None:
        self._began = time.perf_counter()
        self._updates = 0
        self._waiting = 0.0

    def awaited(self, batches: Iterator[Any]) -> Iterator[Any]:
        """The batches, the time until each of them counted as waiting."""
        while True:
            began = time.perf_counter()
            try:
                batch = next(batches)
            except StopIteration:
                return
            self._waiting += time.perf_counter() - began
            yield batch

    def tick(self) -> None:
        self._updates += 1

    def report(self) -> dict[str, float]:
        elapsed = max(time.perf_counter() - self._began, 1e-9)
        values = {"images_per_second": self._updates * self._images / elapsed, "waiting_share": self._waiting / elapsed}
        self._reset()
        return values
