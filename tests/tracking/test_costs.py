"""Costs as metrics: of a stage from its notes, of a run as the sum of its stages, and absent where a part is unknown."""

from __future__ import annotations

from pathlib import Path

import pytest

from gkd_core.records import StudentSize
from gkd_core.settings import Settings
from gkd_core.stages import StageRun
from gkd_core.tracking.costs import cost_line, run_metrics, stage_metrics
from gkd_core.training.cost import FOLDER, ProcessCost
from gkd_core.training.metrics import file_sink

DISTILL = {
    "cost/seconds": 100.0, "cost/cpu_core_hours": 0.5, "cost/gpu_hours": 0.25, "cost/gpus": 2.0, "cost/attempts": 1.0,
    "cost/peak_host_gb": 3.0, "cost/peak_gpu_gb": 1.0, "cost/images": 1000.0, "cost/images_per_second": 20.0, "loss": 1.0,
}  # fmt: skip
LEARN = DISTILL | {"cost/seconds": 50.0, "cost/gpus": 0.0, "cost/peak_gpu_gb": 2.0, "cost/images_per_second": 10.0}
EVALUATE = {
    "cost/seconds": 10.0, "cost/cpu_core_hours": 0.1, "cost/gpu_hours": 0.0, "cost/gpus": 0.0, "cost/peak_host_gb": 4.0,
    "cost/peak_gpu_gb": 0.0, "cost/parameters_millions": 5.0, "cost/gflops": 2.5, "cost/weights_mb": 20.0,
}  # fmt: skip
STAGES = {"distill-proxy": DISTILL, "learn-task-gta5": LEARN, "evaluate-gta5": EVALUATE}
WIDER = EVALUATE | {"cost/parameters_millions": 6.0, "cost/seconds": 5.0}


def stage(name: str) -> StageRun:
    return StageRun(name, None, (), (), Path("artifacts") / name)


def test_a_stage_has_what_its_notes_say_in_units_for_people(tmp_path: Path) -> None:
    ProcessCost(
        role="stage", finished=True, seconds=7200.0, cpu_seconds=3600.0, gpu=True, peak_host_bytes=2_500_000_000,
        peak_gpu_bytes=1_000_000_000,
    ).write(tmp_path / FOLDER / "stage-1.json")  # fmt: skip
    file_sink(tmp_path)(30, {"images_per_second": 12.0})
    metrics = stage_metrics(stage("learn-task"), tmp_path, Settings())
    assert metrics == {
        "cost/seconds": 7200, "cost/attempts": 1, "cost/cpu_core_hours": 1, "cost/gpu_hours": 2, "cost/gpus": 1,
        "cost/peak_host_gb": 2.5, "cost/peak_gpu_gb": 1.0, "cost/images_per_second": 12,
        "cost/images": 30 * Settings().learn_task.batch_size,
    }  # fmt: skip
    StudentSize(parameters=5_000_000, flops=2.5e9, window=(512, 512), weights_bytes=20_000_000).write(tmp_path / "student.json")
    assert stage_metrics(stage("evaluate"), tmp_path, Settings()).items() >= {
        ("cost/parameters_millions", 5.0), ("cost/gflops", 2.5), ("cost/weights_mb", 20.0)
    }  # fmt: skip
    assert not [name for name in stage_metrics(stage("evaluate"), tmp_path, Settings()) if "teacher" in name]
    StudentSize(
        parameters=5_000_000, flops=2.5e9, window=(512, 512), weights_bytes=1, teacher_parameters=9_000_000, teacher_flops=7e9
    ).write(tmp_path / "student.json")
    beside = stage_metrics(stage("evaluate"), tmp_path, Settings())
    assert (beside["cost/teacher_parameters_millions"], beside["cost/teacher_gflops"]) == (9, 7)
    assert cost_line(*run_metrics({"evaluate-gta5": beside})).endswith(
        "student of 5 M parameters, 2.5 GFLOPs a window (its teacher: 9 M, 7 GFLOPs)."
    )


def test_a_stage_without_notes_has_no_zero(tmp_path: Path) -> None:
    assert stage_metrics(stage("learn-task"), tmp_path, Settings()) == {}


def test_a_run_is_the_sum_of_its_stages() -> None:
    metrics, unknown = run_metrics({**STAGES, "evaluate-cityscapes": WIDER})
    assert unknown == []
    assert metrics == {
        "cost/stage_seconds/distill-proxy": 100, "cost/stage_seconds/learn-task-gta5": 50,
        "cost/stage_seconds/evaluate-gta5": 10, "cost/stage_seconds/evaluate-cityscapes": 5,
        "cost/seconds": 165, "cost/cpu_core_hours": pytest.approx(1.2), "cost/gpu_hours": 0.5, "cost/gpus": 2,
        "cost/peak_host_gb": 4, "cost/peak_gpu_gb": 2, "cost/parameters_millions": 6, "cost/gflops": 2.5,
        "cost/weights_mb": 20, "cost/images": 2000, "cost/images_per_second": pytest.approx(2000 / (1000 / 20 + 1000 / 10)),
    }  # fmt: skip
    assert cost_line(metrics, unknown) == (
        "Cost: 165 s in all stages, 0.5 GPU-hours, 1.2 core-hours, student of 6 M parameters, 2.5 GFLOPs a window."
    )


@pytest.mark.parametrize(
    ("unknown", "kept", "lost"),
    [
        (
            "distill-proxy",
            ("gflops", "stage_seconds/evaluate-gta5"),
            ("seconds", "gpu_hours", "images_per_second", "peak_host_gb"),
        ),
        ("evaluate-gta5", ("images_per_second", "stage_seconds/distill-proxy"), ("seconds", "gflops", "weights_mb")),
    ],
)
def test_an_unknown_stage_is_named_and_its_sums_are_absent(unknown: str, kept: tuple[str, ...], lost: tuple[str, ...]) -> None:
    metrics, named = run_metrics({**STAGES, unknown: {"loss": 1.0}})
    assert named == [unknown]
    assert metrics.keys() >= {f"cost/{name}" for name in kept}
    assert not metrics.keys() & {f"cost/{name}" for name in (*lost, f"stage_seconds/{unknown}")}
    assert cost_line(metrics, named) == f"Cost unknown: {unknown} came from outside any tracked run, or left damaged notes."
