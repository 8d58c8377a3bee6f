"""Number formats of the passes, and fp16's scale."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from gkd_core.settings import Precision
from gkd_core.training.precision import GradientScaler, autocast

CPU = torch.device("cpu")


@pytest.mark.parametrize(("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16), ("fp16", torch.float16)])
def test_passes_have_the_format(precision: Precision, dtype: torch.dtype) -> None:
    with autocast(CPU, precision):
        assert nn.Linear(2, 2)(torch.ones(1, 2)).dtype == dtype


def learn(scaler: GradientScaler, gradient: float) -> float:
    """One update of a weight of 0 whose gradient is given; gives the weight afterwards."""
    weight = nn.Parameter(torch.zeros(()))
    optimizer = torch.optim.SGD([weight], lr=1.0)
    scaler.scale(weight * gradient).backward()  # type: ignore[no-untyped-call]
    scaler.unscale(optimizer)
    scaler.step(optimizer)
    return weight.item()


def test_an_overflow_is_left_out_and_counted() -> None:
    scaler = GradientScaler(CPU, "fp16")
    assert learn(scaler, 0.5) == -0.5
    assert [learn(scaler, float("inf")), scaler.skips] == [0.0, 1]
    assert [learn(scaler, float("inf")), scaler.skips] == [0.0, 2]
    again = GradientScaler(CPU, "fp16")
    again.load_state_dict(scaler.state_dict())
    assert again.skips == 2
    assert again.state_dict() == scaler.state_dict()
    assert [learn(again, 0.5), again.skips] == [-0.5, 0]


def test_other_formats_have_no_scale() -> None:
    scaler = GradientScaler(CPU, "bf16")
    loss = torch.tensor(3.0)
    assert scaler.scale(loss) is loss
    assert learn(scaler, 0.5) == -0.5
