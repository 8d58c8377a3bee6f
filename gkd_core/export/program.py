"""A student's program, written, checked, and only then called by its name: a file of its own, or one more file of its bundle."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gkd_core.errors import GkdError
from gkd_core.evaluate.matrix import ScoredImages
from gkd_core.export.check import BOUNDS, Bound, Figures, calibration, compare
from gkd_core.export.cost import Cost, cost_of
from gkd_core.export.int8_file import quantise_onnx
from gkd_core.export.onnx_file import OPSET, add_onnx_facts, check_packages, run_onnx, write_onnx
from gkd_core.export.pt2_file import add_pt2_facts, run_pt2, write_pt2
from gkd_core.export.traced import module_of, traced
from gkd_core.export.wanted import Sizes, Wanted
from gkd_core.files import atomic_file, scratch_folder
from gkd_core.models.segmentor import Segmentor as Network
from gkd_core.predict.bundle import add_program
from gkd_core.predict.manifest import Bundle, Program
from gkd_core.predict.pictures import Picture


@dataclass(frozen=True)
class Student:
    """A student in single precision on the CPU, what is known of it, and real images as it is shown them.

    `labelled`: images on which the mIoU that fewer bits cost is measured; None: it is not.
    """

    bundle: Bundle
    network: Network
    pictures: Sequence[Picture]
    labelled: ScoredImages | None = None


@dataclass(frozen=True)
class Exported:
    """A program that was checked, by which figures, and what it costs where that was measured."""

    program: Program
    figures: Figures
    cost: Cost | None


def export_file(student: Student, wanted: Wanted, sizes: Sizes, path: Path, bound: Bound | None = None) -> Exported:
    """Write a program as a file, whole and checked or not at all; what is known of it stands in the file's own metadata.

    Args:
        bound: another one than that of its precision.

    Raises:
        GkdError: the file is called otherwise than its format; the student cannot be exported; the program is beyond the bound.
    """
    if path.suffix != f".{wanted.format}":
        raise GkdError(f"{path}: a program in this format is a .{wanted.format} file; choose such a name")
    with atomic_file(path) as temporary:
        exported = _checked(student, wanted, sizes, temporary, bound)
        _add_facts(temporary, _facts(student.bundle, exported.program), wanted)
    return exported


def export_into_bundle(student: Student, wanted: Wanted, sizes: Sizes, folder: Path, bound: Bound | None = None) -> Exported:
    """As `export_file`, into the student's own bundle, whose manifest then has the program; a former one of its name goes.

    Raises:
        GkdError: as there; or the bundle is damaged.
    """
    with scratch_folder("export") as scratch:
        file = scratch / wanted.name
        exported = export_file(student, wanted, sizes, file, bound)
        add_program(folder, student.bundle, file, exported.program)
    return exported


def _checked(student: Student, wanted: Wanted, sizes: Sizes, path: Path, bound: Bound | None) -> Exported:
    """Write a program to a path, and hold it against the network."""
    if wanted.format == "onnx":
        check_packages()
    if not student.pictures:
        raise GkdError("no image to check the program on; name some by --images")
    graph = traced(module_of(student.network, wanted, sizes), sizes)
    if wanted.format == "onnx":
        write_onnx(graph, wanted, path)
        if wanted.precision == "int8":
            quantise_onnx(path, calibration(student.pictures, wanted, sizes))
        run = run_onnx(path)
    else:
        write_pt2(graph, path)
        run = run_pt2(path)
    figures = compare(run, student.network, student.pictures, wanted, sizes)
    figures.check(bound or BOUNDS[wanted.precision])
    cost = None
    if student.labelled is not None:
        cost = cost_of(run, student.network, student.labelled, student.bundle.view, sizes, wanted.takes)
    return Exported(_program(wanted, sizes, figures.recorded | (cost.recorded if cost else {})), figures, cost)


def _program(wanted: Wanted, sizes: Sizes, checked: dict[str, float]) -> Program:
    return Program(
        format=wanted.format,
        file=wanted.name,
        opset=OPSET if wanted.format == "onnx" else None,
        takes=wanted.takes,
        precision=wanted.precision,
        size=sizes.traced if sizes.fixed_because is not None else None,
        fixed_because=sizes.fixed_because,
        multiple=sizes.multiple,
        smallest=sizes.smallest,
        checked=checked,
    )


def _facts(bundle: Bundle, program: Program) -> str:
    """What a file says of itself, as JSON."""
    known = {"classes": bundle.classes, "colors": bundle.colors, "mean": bundle.mean, "std": bundle.std,
             "weights": bundle.model.sha256, "gkd": bundle.version}  # fmt: skip
    return json.dumps({"program": program.model_dump(mode="json", exclude={"file"}), **known})


def _add_facts(path: Path, facts: str, wanted: Wanted) -> None:
    add = add_onnx_facts if wanted.format == "onnx" else add_pt2_facts
    add(path, facts)
