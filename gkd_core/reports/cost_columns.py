"""The columns in which a comparison says what a student cost, and how their values are written."""

from __future__ import annotations

from typing import NamedTuple


class Measure(NamedTuple):
    """A cost: its metric below `cost/`, its column's head, its unit, and what it says."""

    metric: str
    head: str
    unit: str
    meaning: str


MEASURES = (
    Measure("seconds", "time", "s", "wall-clock time of all stages together, whoever ran them"),
    Measure("gpu_hours", "GPU-hours", "h", "GPUs times the hours that processes worked on them"),
    Measure("cpu_core_hours", "core-hours", "h", "processor time of all processes"),
    Measure("images_per_second", "training", "images/s", "mean speed of the training stages"),
    Measure("peak_host_gb", "memory", "GB", "largest memory of a stage's processes together"),
    Measure("peak_gpu_gb", "GPU memory", "GB", "largest allocation on one GPU"),
    Measure("parameters_millions", "parameters", "M", "parameters of student and decoder"),
    Measure("gflops", "GFLOPs", "", "floating-point operations of one evaluation window"),
    Measure("weights_mb", "weights", "MB", "size of the student's safetensors"),
)


def figure(value: float | None) -> str:
    """Three digits that count, thousands apart; a dash where the value is unknown."""
    if value is None:
        return "–"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
