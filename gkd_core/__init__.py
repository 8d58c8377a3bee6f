"""Generalizable knowledge distillation: a vision foundation model into a small segmentation model.

>>> from gkd_core import Segmentor
>>> Segmentor.__module__
'gkd_core.predict.student'
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gkd_core.predict.student import Segmentor

__all__ = ["Segmentor"]


def __getattr__(name: str) -> Any:
    """`Segmentor`, loaded where it is first asked for: torch takes seconds."""
    if name == "Segmentor":
        from gkd_core.predict.student import Segmentor

        return Segmentor
    raise AttributeError(f"module 'gkd_core' has no attribute '{name}'")
