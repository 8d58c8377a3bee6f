"""Tensors from one naming to another, by tables of rules."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

Convert = Callable[[Tensor], Sequence[Tensor]]


def as_it_is(tensor: Tensor) -> Sequence[Tensor]:
    """One tensor, unchanged."""
    return (tensor,)


def thirds(tensor: Tensor) -> Sequence[Tensor]:
    """Query, key and value of a packed projection (3C, ...)."""
    return tensor.chunk(3)


def only_row(tensor: Tensor) -> Sequence[Tensor]:
    """(1, C) to (C,)."""
    return (tensor.squeeze(0),)


@dataclass(frozen=True)
class Rule:
    r"""What becomes of the tensors whose whole name matches `pattern`.

    Attributes:
        pattern: regular expression.
        names: new names, `\1` standing for the first group; as many as `convert` gives tensors.
    """

    pattern: str
    names: tuple[str, ...]
    convert: Convert = as_it_is


@dataclass(frozen=True)
class Aside:
    """Tensors that are known and not wanted, and why."""

    pattern: str
    reason: str


@dataclass(frozen=True)
class Renamed:
    """Tensors under their new names, and what was done with each old name.

    Attributes:
        tensors: by new name.
        mapped: old name to its new names.
        aside: reason to the old names that were left out for it.
        unknown: old names that no rule knows.
    """

    tensors: dict[str, Tensor]
    mapped: dict[str, tuple[str, ...]]
    aside: dict[str, tuple[str, ...]]
    unknown: tuple[str, ...]


def rename(tensors: Mapping[str, Tensor], rules: Sequence[Rule], asides: Sequence[Aside] = ()) -> Renamed:
    """Apply the first rule that matches each name; names that `asides` match, and no rule, are left out."""
    renamed: dict[str, Tensor] = {}
    mapped: dict[str, tuple[str, ...]] = {}
    aside: dict[str, tuple[str, ...]] = {}
    unknown: list[str] = []
    for name, tensor in tensors.items():
        new = _applied(name, tensor, rules)
        reason = next((item.reason for item in asides if re.fullmatch(item.pattern, name)), None)
        if new is not None:
            renamed |= new
            mapped[name] = tuple(new)
        elif reason is not None:
            aside[reason] = (*aside.get(reason, ()), name)
        else:
            unknown.append(name)
    return Renamed(renamed, mapped, aside, tuple(unknown))


def under(rules: Sequence[Rule], old: str, new: str) -> tuple[Rule, ...]:
    """The same rules for names that begin with `old`, giving names that begin with `new`."""
    return tuple(Rule(re.escape(old) + rule.pattern, tuple(new + name for name in rule.names), rule.convert) for rule in rules)


def _applied(name: str, tensor: Tensor, rules: Sequence[Rule]) -> dict[str, Tensor] | None:
    for rule in rules:
        match = re.fullmatch(rule.pattern, name)
        if match:
            return dict(zip((match.expand(new) for new in rule.names), rule.convert(tensor), strict=True))
    return None
