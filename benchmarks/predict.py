"""What `gkd predict` and an exported program take beside the bare model: rates on one core, and memory over many images.

The bare model, eager PyTorch, is given windows that lie in memory, as many at once, and so is its ONNX program, by onnxruntime on
the CPU; `gkd predict` reads JPEGs, writes label maps and the table. All run on one core, so what overlaps elsewhere adds up here.
ONNX is left out where its packages are absent. Example:

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

from gkd_core.errors import GkdError
from gkd_core.export.onnx_file import check_packages, run_onnx
from gkd_core.export.program import Student as Exportable
from gkd_core.export.program import export_file
from gkd_core.export.wanted import Sizes
from gkd_core.export.wanted import Wanted as Exported
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
        rates = _rates(bundle, place, batch, rounds)
        memory = {str(count): _peak(bundle, place / name, place / f"{name}-out", batch)
                  for name, count in (("few", images), ("many", 4 * images))}  # fmt: skip
        figures = {
            "arch": arch, "decoder": decoder, "parameters": parameter_count(open_bundle(bundle)[1]), "size": size, "batch": batch,
            "images_per_second": {name: round(rate, 3) for name, rate in rates.items()},
            "ratio_to_bare": {name: round(rate / rates["bare"], 3) for name, rate in rates.items() if name != "bare"},
            "peak_bytes_by_images": memory,
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


def _rates(bundle: Path, place: Path, batch: int, rounds: int) -> dict[str, float]:
    """Images a second of the bare model, its ONNX program and `gkd predict`'s loop, in turn, the medians of the rounds."""
    stated, network = open_bundle(bundle)
    pictures = [read_picture(path) for path in sorted((place / "few").iterdir())]
    windows = torch.stack([picture.rows(0, picture.height) for picture in pictures])
    student = Segmentor(stated, network, torch.device("cpu"))
    contestants = {
        "bare": partial(_batches, network, windows, batch),
        "predict": partial(_predict, student, place / "few", place, batch),
    }
    program = _onnx(Exportable(stated, network, pictures), place / "student.onnx")
    if program is not None:
        contestants["onnx"] = partial(_batches, program, windows, batch)
    found: dict[str, list[float]] = {name: [] for name in contestants}
    for number in range(rounds + 1):  # the first warms up
        for name, work in contestants.items():
            rate = _rate(work, len(pictures))
            found[name] += [rate] if number else []
    return {name: statistics.median(each) for name, each in found.items()}


def _onnx(student: Exportable, path: Path) -> Callable[[torch.Tensor], torch.Tensor] | None:
    """The student's ONNX program as onnxruntime runs it; None where the packages are absent."""
    try:
        check_packages()
    except GkdError as error:
        print(error, file=sys.stderr)
        return None
    export_file(student, Exported(format="onnx"), Sizes.of(student.network, student.bundle.view), path)
    return run_onnx(path)


@torch.inference_mode()
def _batches(model: Callable[[torch.Tensor], torch.Tensor], windows: torch.Tensor, batch: int) -> None:
    for first in range(0, len(windows), batch):
        model(windows[first : first + batch])


def _predict(student: Segmentor, photographs: Path, place: Path, batch: int) -> None:
    """The loop of `gkd predict`, without the start of a process; into a new folder each time."""
    out = Path(tempfile.mkdtemp(dir=place)) / "out"
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
