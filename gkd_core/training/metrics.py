"""Step metrics as lines of JSON in the run folder: written by the process that trains, followed by whoever tracks it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path

FILE = "metrics.jsonl"
MetricsSink = Callable[[int, Mapping[str, float]], None]


def file_sink(folder: Path) -> MetricsSink:
    """A sink that appends `{"step", "time", ...}` lines to `metrics.jsonl` in the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / FILE

    def write(step: int, values: Mapping[str, float]) -> None:
        line = json.dumps({"step": step, "time": round(time.time(), 3), **values})
        with path.open("a", encoding="utf-8") as stream:
            stream.write(line + "\n")

    return write
