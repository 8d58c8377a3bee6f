"""How fast stage one runs here: images a second, peak memory, and the share of the device's peak that is put to use (MFU).

The real training loop on generated photographs, with random weights, which are as fast as any. Example:

    python benchmarks/stage_one.py --size 224 --patch 14 --batch 256 --precision bf16 --loaders 12 --peak-tflops 989
"""

from __future__ import annotations

import json
import statistics
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import torch
import typer
from photographs import write_photographs
from rich.console import Console
from rich.table import Table

from gkd_core.distill.job import DistillJob, step_encoder
from gkd_core.distill.stage_one import distill
from gkd_core.planning.flops import distillation_cost
from gkd_core.settings import DistillSettings, EncoderSettings
from gkd_core.training.checkpoint import FolderStore
from gkd_core.training.rank import Rank

WARM_UP_REPORTS = 1  # the first report has the start of kernels, loaders and, where asked for, the compiler in it


def main(
    teacher: Annotated[str, typer.Option(help="Teacher, a timm architecture.")] = "vit_base_patch14_dinov2",
    student: Annotated[str, typer.Option(help="Student, a timm architecture.")] = "vit_small_patch16_224",
    objective: Annotated[str, typer.Option(help="qsd or mse.")] = "qsd",
    size: Annotated[int, typer.Option(help="Side of the crop, pixels.")] = 224,
    patch: Annotated[int | None, typer.Option(help="Patch side of both encoders, pixels; left out, each keeps its own.")] = None,
    batch: Annotated[int, typer.Option(help="Images in an update.")] = 64,
    updates: Annotated[int, typer.Option(help="Updates of one report.")] = 20,
    reports: Annotated[int, typer.Option(help="Reports after the first, of which the median is shown.")] = 5,
    precision: Annotated[str, typer.Option(help="fp32, bf16 or fp16.")] = "bf16",
    loaders: Annotated[int, typer.Option(help="Processes that make batches ahead of use.")] = 0,
    images: Annotated[int, typer.Option(help="Photographs to generate.")] = 512,
    compiled: Annotated[bool, typer.Option("--compile", help="Compile the encoders.")] = False,
    checkpointing: Annotated[bool, typer.Option("--activation-checkpointing", help="Trade speed for memory.")] = False,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cuda" if torch.cuda.is_available() else "cpu",
    peak_tflops: Annotated[float | None, typer.Option(help="The device's peak in this precision, for the MFU.")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="File to write for gkd plan --measured.")] = None,
    stage: Annotated[str, typer.Option(help="Stage that --json calls it: distill-proxy or distill-source.")] = "distill-proxy",
) -> None:
    """Measure stage one with these models on this device."""
    section = DistillSettings(
        updates=(WARM_UP_REPORTS + reports) * updates,
        batch_size=batch,
        image_size=(size, size),
        patch_size=patch,
        precision=precision,
        compile=compiled,
        activation_checkpointing=checkpointing,
        log_every=updates,
        checkpoint_every=10**9,
    )
    roles = {"teacher": EncoderSettings(arch=teacher), "student": EncoderSettings(arch=student)}
    with tempfile.TemporaryDirectory() as folder:
        lines = _train(section, objective, roles, write_photographs(Path(folder), images), Path(folder), device, loaders)
    measured = lines[WARM_UP_REPORTS:]
    rate = statistics.median(line["images_per_second"] for line in measured)
    flops = sum(cost.flops for cost in distillation_cost(section, objective, **roles).values())
    on_gpu = device == "cuda"
    speed = rate * flops / 1e12
    if json_file is not None:
        computing = 1 - statistics.median(line["waiting_share"] for line in measured)
        json_file.write_text(json.dumps({stage: {"images_per_second": rate / computing}}, indent=1) + "\n")
    _show(
        {
            "device": torch.cuda.get_device_name() if on_gpu else f"cpu, {torch.get_num_threads()} thread(s)",
            "models": f"{teacher} → {student}, {size}², patch {patch or 'own'}, {precision}, batch {batch}, {objective}",
            "images / s": f"{rate:.1f}",
            "waiting for data": f"{statistics.median(line['waiting_share'] for line in measured):.0%}",
            "GFLOPs / image": f"{flops / 1e9:.1f}",
            "TFLOP / s": f"{speed:.2f}",
            "MFU": f"{speed / peak_tflops:.1%} of {peak_tflops:g} TFLOP/s" if peak_tflops else "give --peak-tflops",
            "peak memory": f"{torch.cuda.max_memory_allocated() / 2**30:.1f} GiB" if on_gpu else "measured on CUDA only",
        }
    )


def _train(
    section: DistillSettings,
    objective: str,
    roles: Mapping[str, EncoderSettings],
    images: tuple[Path, ...],
    folder: Path,
    device: str,
    loaders: int,
) -> list[Mapping[str, float]]:
    """The metrics of each report of a training from nothing."""
    job = DistillJob(
        title="benchmark",
        objective=objective,
        settings=section,
        updates=section.updates_for(len(images)),
        teacher=step_encoder(roles["teacher"], section),
        student=step_encoder(roles["student"], section),
        images=images,
        start=None,
        seed=0,
        threads=torch.get_num_threads(),
        device=device,
        run_folder=folder,
        loaders=loaders,
    )
    lines: list[Mapping[str, float]] = []
    distill(job, Rank(), FolderStore(folder), lambda step, values: lines.append(values), lambda done: None)
    return lines


def _show(figures: Mapping[str, str]) -> None:
    table = Table(show_header=False, box=None)
    for name, value in figures.items():
        table.add_row(name, value)
    Console(highlight=False).print(table)


if __name__ == "__main__":
    typer.run(main)
