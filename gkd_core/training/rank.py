"""Who among the processes of one training this is."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Rank:
    """This process among those that train together."""

    index: int = 0
    count: int = 1
