"""What a bootstrap found or did about one thing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

State = Literal["made", "set", "already so", "not supported", "not kept", "left out"]
CHANGES: tuple[State, ...] = ("made", "set", "not kept")


@dataclass(frozen=True)
class Outcome:
    """One thing that a bootstrap sets up, and its state afterwards."""

    feature: str
    state: State
    note: str = ""

    @property
    def is_change(self) -> bool:
        """Whether the bootstrap wrote something: run again at once, it writes nothing."""
        return self.state in CHANGES
