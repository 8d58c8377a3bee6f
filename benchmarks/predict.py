"""What `gkd predict` takes beside its model: its rate against the bare model's on one core, and its memory over many images.

The bare model is given windows that lie in memory, as many at once; `gkd predict` reads JPEGs, writes label maps and the table.
Both run on one core, so what overlaps elsewhere adds up here. Example:

    python benchmarks/predict.py --arch vit_small_patch16_224 --decoder segformer --size 512 --images 16
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated

import safetensors.torch
import torch
import typer
from photographs import write_photographs
from torch import nn

from gkd_core.models.build import build_encoder, parameter_count
from gkd_core.models.segmentor import build_segmentor
from gkd_core.predict.bundle import described, open_bundle, write_bundle
from gkd_core.predict.inputs import find_inputs
from gkd_core.predict.loop import Work, predict_inputs
from gkd_core.predict.manifest import Bundle, Licences, View
from gkd_core.predict.outputs import Outputs, Wanted, open_output, open_table
from gkd_core.predict.pictures import read_picture
from gkd_core.predict.student import Segmentor
from gkd_core.records import SegmentorCheckpoint, sha256_of
from gkd_core.settings import EncoderSettings

CLASSES = 19
WEIGHTS = "segmentor.safetensors"
COMMAND = (sys.executable, "-c", "from gkd_core.cli import main; main()", "predict")


def main(
    arch: Annotated[str, typer.Option(help="Student, as timm names it.")] = "vit_small_patch16_224",
    decoder: Annotated[str, typer.Option(help="linear, segformer or mask2former.")] = "segformer",
    size: Annotated[int, typer.Option(help="Side of photographs and of windows in pixels, a multiple of 32.")] = 512,
    images: Annotated[int, typer.Option(help="Photographs of a round.")] = 16,
    batch: Annotated[int, typer.Option(help="Photographs at once.")] = 1,
    rounds: Annotated[int, typer.Option(help="Rounds, in turn; medians are shown.")] = 3,
    output: Annotated[Path | None, typer.Option("--json", help="Write the figures to this file.")] = None,
) -> None:
    """Measure rate and memory on one core."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        bundle = _bundle(place, arch, decoder, size)
        write_photographs(place / "few", images, (size, size))
        write_photographs(place / "many", 4 * images, (size, size))
        bare, whole = _rates(bundle, place, images, batch, rounds)
        memory = {str(count): _peak(bundle, place / name, place / f"{name}-out", batch)
                  for name, count in (("few", images), ("many", 4 * images))}  # fmt: skip
        figures = {
            "arch": arch, "decoder": decoder, "parameters": parameter_count(open_bundle(bundle)[1]), "size": size, "batch": batch,
            "bare_images_per_second": round(bare, 3), "predict_images_per_second": round(whole, 3),
            "ratio": round(whole / bare, 3), "peak_bytes_by_images": memory,
        }  # fmt: skip
    text = json.dumps(figures, indent=1)
    print(text)
    if output is not None:
        output.write_text(text + "\n", encoding="utf-8")


def _bundle(place: Path, arch: str, decoder: str, size: int) -> Path:
    """A student of random weights, as a bundle."""
    settings = EncoderSettings(arch=arch, image_size=size if arch.startswith("vit") else None)
    network = build_segmentor(build_encoder(settings, 0), decoder, CLASSES, 256, 0)
    safetensors.torch.save_file(network.state_dict(), place / WEIGHTS)
    record = SegmentorCheckpoint(
        encoder=settings, decoder=decoder, decoder_width=256, taxonomy="cityscapes-19", source="gta5", weights=WEIGHTS,
        classes=tuple(f"class {index}" for index in range(CLASSES)), sha256=sha256_of(place / WEIGHTS), method="gkd", seed=0,
        feature_norm="none", updates=0, encoder_frozen=True,
    )  # fmt: skip
    mean, std = ([round(value, 6) for value in part.flatten().tolist()] for part in (network.encoder.mean, network.encoder.std))
    bundle = Bundle(
        version="benchmark", model=record, colors=tuple((index, index, index) for index in range(CLASSES)),
        mean=(mean[0], mean[1], mean[2]), std=(std[0], std[1], std[2]), view=View(window=(size, size), stride=(size, size)),
        licences=Licences(student="none"), files=(described(place / WEIGHTS),),
    )  # fmt: skip
    write_bundle(bundle, place / WEIGHTS, place / "student.gkd")
    return place / "student.gkd"


def _rates(bundle: Path, place: Path, images: int, batch: int, rounds: int) -> tuple[float, float]:
    """Images a second of the bare model and of `gkd predict`'s loop, in turn, the medians."""
    stated, network = open_bundle(bundle)
    student = Segmentor(stated, network, torch.device("cpu"))
    pictures = [read_picture(path) for path in sorted((place / "few").iterdir())]
    windows = torch.stack([picture.rows(0, picture.height) for picture in pictures])
    found: list[tuple[float, float]] = []
    for number in range(rounds + 1):  # the first warms up
        out = place / f"out-{number}"
        rates = (
            _rate(partial(_bare, network, windows, batch), images),
            _rate(partial(_predict, student, place / "few", out, batch), images),
        )
        found += [rates] if number else []
    return statistics.median(rate[0] for rate in found), statistics.median(rate[1] for rate in found)


@torch.inference_mode()
def _bare(network: nn.Module, windows: torch.Tensor, batch: int) -> None:
    for first in range(0, len(windows), batch):
        network(windows[first : first + batch])


def _predict(student: Segmentor, photographs: Path, out: Path, batch: int) -> None:
    """The loop of `gkd predict`, without the start of a process."""
    open_output(out, replace=False)
    with open_table(out, student.classes) as table:
        work = Work(student, Outputs(out, Wanted()), table, batch, 1, lambda done: None, print)
        predict_inputs(work, find_inputs([str(photographs)], out))


def _rate(work: Callable[[], None], images: int) -> float:
    began = time.perf_counter()
    work()
    return images / (time.perf_counter() - began)


def _peak(bundle: Path, photographs: Path, out: Path, batch: int) -> int:
    """Peak memory of `gkd predict` on a folder, in bytes."""
    process = subprocess.Popen(
        [*COMMAND, str(bundle), str(photographs), "-o", str(out), "--batch", str(batch), "--device", "cpu"]
    )
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"gkd predict ended with {process.returncode}")
    return usage.ru_maxrss * 1024


if __name__ == "__main__":
    typer.run(main)
