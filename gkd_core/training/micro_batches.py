"""An update's batch in parts, for gradient accumulation."""

from __future__ import annotations

import dataclasses
from typing import Any

from torch import Tensor


def cut(batch: Any, parts: int) -> list[Any]:
    """Cut a batch into `parts`: part k has every `parts`-th sample, from the k-th on.

    Tensors are cut along their first dimension and lists item by item; tuples, mappings and dataclasses are cut field by
    field, and anything else goes into every part. Samples that come first in the batch (the masked ones of stage one) so
    come first in each part, and are shared out evenly.
    """
    return [batch] if parts == 1 else [_part(batch, number, parts) for number in range(parts)]


def _part(value: Any, number: int, parts: int) -> Any:
    if isinstance(value, Tensor | list):
        return value[number::parts]
    if isinstance(value, dict):
        return {key: _part(item, number, parts) for key, item in value.items()}
    if isinstance(value, tuple):
        items = [_part(item, number, parts) for item in value]
        return type(value)(*items) if hasattr(value, "_fields") else tuple(items)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {field.name: _part(getattr(value, field.name), number, parts) for field in dataclasses.fields(value)}
        return dataclasses.replace(value, **fields)
    return value
