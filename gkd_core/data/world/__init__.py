"""A small procedural world that stands in for the real datasets: same layouts, same label ids, the same kind of domain gaps."""

from gkd_core.data.world.render import render_labelled
from gkd_core.data.world.writer import write_world

__all__ = ["render_labelled", "write_world"]
