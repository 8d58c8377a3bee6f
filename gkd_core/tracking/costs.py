"""What a run cost, as flat MLflow metrics below `cost/`: of a stage as it noted it, of a run the sum of its stages.

A stage that was restored costs what the run that made it has noted: the question is what a student took to make, whoever
made its parts. Where nobody knows that, or a note of it is damaged, the run has no sum, and a tag says of which stages.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from gkd_core.errors import GkdError
from gkd_core.notes import set_aside
from gkd_core.paths import SIZE
from gkd_core.records import StudentSize
from gkd_core.settings import Settings
from gkd_core.stages import StageRun
from gkd_core.stages.facts import EVALUATE, STAGES, names_where
from gkd_core.training.cost import LOST, StageCost, read_cost

COST = "cost/"
STAGE_SECONDS = f"{COST}stage_seconds/"  # on a run: wall-clock seconds of one stage
UNKNOWN_TAG = "cost.unknown"
DAMAGED_TAG = "cost.damaged"  # on a stage's run: names of its notes that were damaged
SUMMED = ("seconds", "cpu_core_hours", "gpu_hours")
LARGEST = ("peak_host_gb", "peak_gpu_gb", "gpus")
# Of the largest student, where a run has one a source.
SIZES = ("parameters_millions", "gflops", "weights_mb", "teacher_parameters_millions", "teacher_gflops")
IMAGES, SPEED = "images", "images_per_second"
HOUR, MEGA, GIGA = 3600, 1e6, 1e9

Metrics = Mapping[str, float]


def stage_metrics(run: StageRun, folder: Path, settings: Settings) -> dict[str, float]:
    """Metrics of a finished stage, from the notes in its run folder.

    There are none where it left none, and where one is damaged: a sum that lacks a part would be a wrong one.
    """
    size = _student(folder)
    cost = read_cost(folder)
    if cost is None or cost.lost:
        return {}
    metrics = {**_used(cost), **_trained(cost, run, settings), **({} if size is None else _size(size))}
    return {f"{COST}{name}": value for name, value in metrics.items()}


def damaged_notes(folder: Path) -> tuple[str, ...]:
    """Names of the notes in a stage's run folder for want of which it has no metrics."""
    cost = read_cost(folder)
    return () if cost is None else cost.lost


def _student(folder: Path) -> StudentSize | None:
    """What the student takes, where the stage has noted that; a damaged note is set aside, and `read_cost` then names it."""
    path = folder / SIZE
    if not os.path.lexists(path):
        return None
    try:
        return StudentSize.read(path)
    except GkdError:
        set_aside(path, "not a note of this version", LOST)
    except (OSError, ValueError) as error:
        set_aside(path, error, LOST)
    return None


def run_metrics(stages: Mapping[str, Metrics]) -> tuple[dict[str, float], list[str]]:
    """Metrics of a run from those of all its stages, by their names; and the stages whose cost is unknown.

    A sum that lacks a part is left out, as are the speed where a training is unknown and the size where a student is.
    """
    unknown = [name for name, metrics in stages.items() if f"{COST}seconds" not in metrics]
    known = {name: _own(metrics) for name, metrics in stages.items() if name not in unknown}
    total = {f"{STAGE_SECONDS}{name}": metrics["seconds"] for name, metrics in known.items()}
    sums: dict[str, float] = {}
    if not unknown:
        sums = {name: sum(metrics[name] for metrics in known.values()) for name in SUMMED}
        sums |= {name: max(metrics[name] for metrics in known.values()) for name in LARGEST}
    if not any(name.startswith(EVALUATE.name) for name in unknown):
        sums |= {name: max(sizes) for name in SIZES if (sizes := [each[name] for each in known.values() if name in each])}
    if not any(name.startswith(names_where(lambda stage: stage.trains)) for name in unknown):
        sums |= _speed([metrics for metrics in known.values() if SPEED in metrics])
    return {**total, **{f"{COST}{name}": value for name, value in sums.items()}}, unknown


def cost_line(metrics: Metrics, unknown: list[str]) -> str:
    """What a run cost, in a sentence."""
    own = _own(metrics)
    if unknown:
        return f"Cost unknown: {', '.join(unknown)} came from outside any tracked run, or left damaged notes."
    parts = [
        f"{own['seconds']:,.0f} s in all stages",
        f"{own['gpu_hours']:.3g} GPU-hours",
        f"{own['cpu_core_hours']:.3g} core-hours",
    ]
    if "parameters_millions" in own:
        parts.append(f"student of {own['parameters_millions']:.3g} M parameters, {own['gflops']:.3g} GFLOPs a window")
    if "teacher_parameters_millions" in own:
        parts[-1] += f" (its teacher: {own['teacher_parameters_millions']:.3g} M, {own['teacher_gflops']:.3g} GFLOPs)"
    return f"Cost: {', '.join(parts)}."


def _own(metrics: Metrics) -> dict[str, float]:
    return {name.removeprefix(COST): value for name, value in metrics.items() if name.startswith(COST)}


def _used(cost: StageCost) -> dict[str, float]:
    return {
        "seconds": cost.seconds,
        "attempts": float(cost.attempts),
        "cpu_core_hours": cost.cpu_seconds / HOUR,
        "gpu_hours": cost.gpu_seconds / HOUR,
        "gpus": float(cost.gpus),
        "peak_host_gb": cost.peak_host_bytes / GIGA,
        "peak_gpu_gb": cost.peak_gpu_bytes / GIGA,
    }


def _trained(cost: StageCost, run: StageRun, settings: Settings) -> dict[str, float]:
    stage = STAGES.get(run.stage)
    if cost.images_per_second is None or stage is None or not stage.trains:
        return {}
    batch_size = getattr(settings, str(stage.section)).batch_size
    return {IMAGES: float(cost.updates * batch_size), SPEED: cost.images_per_second}


def _size(size: StudentSize) -> dict[str, float]:
    return {
        "parameters_millions": size.parameters / MEGA,
        "gflops": size.flops / GIGA,
        "weights_mb": size.weights_bytes / MEGA,
        **({} if size.teacher_parameters is None else {"teacher_parameters_millions": size.teacher_parameters / MEGA}),
        **({} if size.teacher_flops is None else {"teacher_gflops": size.teacher_flops / GIGA}),
    }


def _speed(trainings: list[dict[str, float]]) -> dict[str, float]:
    """Images of all trainings over the time that they took at their speeds."""
    images = sum(metrics[IMAGES] for metrics in trainings)
    seconds = sum(metrics[IMAGES] / metrics[SPEED] for metrics in trainings)
    return {IMAGES: images, SPEED: images / seconds} if seconds else {}
