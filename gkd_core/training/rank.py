"""Who among the processes of one training this is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Rank:
    """This process among those that train together; `group` is torch's, None where all processes that there are take part."""

    index: int = 0
    count: int = 1
    group: Any = None
