"""How one thing that a bootstrap looks after stands when it is done."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

State = Literal["made", "set", "already so", "not supported", "not kept", "left out"]
CHANGES: tuple[State, ...] = ("made", "set", "not kept")


@dataclass(frozen=True)
class Finding:
    """One thing, and how it stands after the bootstrap."""

    feature: str
    state: State
    note: str = ""

    @property
    def is_change(self) -> bool:
        """Whether the bootstrap wrote something: done again at once, nothing of this kind is left."""
        return self.state in CHANGES
