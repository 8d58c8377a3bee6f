"""The command `gkd export`: a student for other programs than this one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple

import typer

from gkd_core.cli.opening import is_bundle, open_student
from gkd_core.cli.options import Profile, Set, read_settings
from gkd_core.errors import GkdError, SettingsError
from gkd_core.paths import PARAMS

if TYPE_CHECKING:
    from gkd_core.data.catalog.load import Domain
    from gkd_core.data.files.blobs import DataFile
    from gkd_core.data.files.origin import Origin
    from gkd_core.evaluate.matrix import ScoredImages
    from gkd_core.predict.manifest import Bundle, Program

EXAMPLE = "gkd export student.gkd --format onnx --classes --images photographs -o student.onnx"
Precision = Literal["fp32", "fp16", "int8"]
PROGRAMS = ("onnx", "pt2")


def export(
    model: Annotated[
        str,
        typer.Argument(
            help="A bundle, the folder of a segmentor, its MLflow address; for timm also the folder of a distilled student."
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="File to write, with the suffix of its format; without it, a program goes into its bundle."
        ),
    ] = None,
    format_: Annotated[
        Literal["timm", "onnx", "pt2", "torchscript", "safetensors"],
        typer.Option(
            "--format",
            help="timm: the backbone as timm's state dict; onnx, pt2: the segmentor as a program; safetensors: all its weights.",
        ),
    ] = "timm",
    classes: Annotated[
        bool, typer.Option("--classes", help="A program from uint8 (B, H, W, 3) to classes (B, H, W), not from floats to logits.")
    ] = False,
    half: Annotated[bool, typer.Option("--half", help="A program whose weights and sums have 16 bits.")] = False,
    int8: Annotated[
        bool, typer.Option("--int8", help="An ONNX program whose weights have 8 bits, its ranges taken from the images.")
    ] = False,
    size: Annotated[
        str | None,
        typer.Option(help="HEIGHTxWIDTH that a program is made with; the student's window, if not given."),
    ] = None,
    images: Annotated[
        list[str] | None,
        typer.Option(help="Images, folders, globs to check a program on; the source's validation images, if not given."),
    ] = None,
    profile: Profile = None,
    set_: Set = None,
) -> None:
    """Write a student for other programs than this one; a program is held against PyTorch before it gets its name."""
    match format_:
        case "onnx" | "pt2":
            _program(model, output, format_, _Options(classes, _precision(half, int8), size, images, profile, set_))
            return
        case "torchscript":
            raise _no_torchscript()
    given = [
        name
        for name, value in (("classes", classes), ("half", half), ("int8", int8), ("size", size), ("images", images))
        if value
    ]
    if given:
        raise SettingsError(f"--{given[0]}: is for programs, --format {' or '.join(PROGRAMS)}; leave it out")
    if output is None:
        raise SettingsError(f"--output: --format {format_} needs the name of a file; give one that ends in .safetensors")
    if format_ == "timm":
        _timm(model, output)
    else:
        _whole(model, output, profile, set_)


def _precision(half: bool, int8: bool) -> Precision:
    if half and int8:
        raise SettingsError("--int8: --half is given beside it; give one of them")
    return "fp16" if half else "int8" if int8 else "fp32"


class _Options(NamedTuple):
    """What a person says of a program."""

    classes: bool
    precision: Precision
    size: str | None
    images: list[str] | None
    profile: str | None
    set_: list[str] | None


def _timm(model: str, output: Path) -> None:
    from gkd_core.interop.export import as_timm, read_encoder, write_timm

    found = as_timm(*read_encoder(Path(model)))
    write_timm(found, output)
    typer.echo(f"wrote {output}: {len(found.tensors)} tensors for\n{found.call}")
    typer.echo(f"which takes images in 0..1, normalised by mean {found.mean} and std {found.std}")


def _whole(model: str, output: Path, profile: str | None, set_: list[str] | None) -> None:
    from gkd_core.export.whole import export_whole
    from gkd_core.untrusted import given_path

    count = export_whole(*open_student(model, profile, set_), given_path(output))
    typer.echo(f"wrote {output}: {count} tensors of encoder and decoder, with their record in the metadata")


def _no_torchscript() -> GkdError:
    import torch

    return GkdError(
        f"--format torchscript: torch {torch.__version__} has deprecated TorchScript in favour of torch.export; "
        "give --format pt2, or onnx where no Python is"
    )


def _program(model: str, output: Path | None, format_: Literal["onnx", "pt2"], options: _Options) -> None:
    """Write a program as a file, or into its bundle, and say what it takes and how near it is."""
    from gkd_core.export.images import shown_pictures
    from gkd_core.export.onnx_file import check_packages
    from gkd_core.export.program import Student, export_file, export_into_bundle
    from gkd_core.export.wanted import Sizes, Wanted, read_size
    from gkd_core.untrusted import given_path

    if output is None and not is_bundle(model):
        raise SettingsError(f"--output: {model} is no bundle that a program could go into; give a file that ends in .{format_}")
    if format_ == "onnx":
        check_packages()
    wanted = Wanted(
        format=format_, takes="classes-of-bytes" if options.classes else "logits-of-floats", precision=options.precision
    )
    size = read_size(options.size) if options.size is not None else None
    bundle, network = open_student(model, options.profile, options.set_)
    sizes = Sizes.of(network, bundle.view, size)
    student = Student(
        bundle, network, shown_pictures(_images(model, bundle, options), bundle.view.protocol), _labelled(bundle, options)
    )
    if output is not None:
        exported = export_file(student, wanted, sizes, given_path(output))
    else:
        exported = export_into_bundle(student, wanted, sizes, given_path(model))
    typer.echo(f"wrote {output if output is not None else Path(model) / wanted.name}: {_described(exported.program)}")
    typer.echo(f"held against PyTorch: {exported.figures.line}")
    if exported.cost is not None:
        typer.echo(f"measured: {exported.cost.line}")
    elif options.precision != "fp32":
        typer.echo(f"not measured: what it costs in mIoU, as there is no {PARAMS} here that says where labelled images are")


def _images(model: str, bundle: Bundle, options: _Options) -> Iterator[DataFile]:
    """Files of real images: those that are named, or the source's validation images where the settings know them."""
    if options.images:
        from gkd_core.predict.inputs import find_inputs

        return (item.path for item in find_inputs(options.images, Path(model)) if not item.is_video)
    source = bundle.model.source
    if not PARAMS.is_file() and options.profile is None:
        raise GkdError(f"no images to check the program on: there is no {PARAMS} here that says where {source} is; give --images")
    origin, domain = _validation(source, options)
    return iter(origin.images(domain))


def _labelled(bundle: Bundle, options: _Options) -> ScoredImages | None:
    """The source's validation images with their labels, where fewer bits are wanted and the settings know them."""
    from gkd_core.evaluate.places import check_classes
    from gkd_core.stages.evaluate import scored_images

    if options.precision == "fp32" or (not PARAMS.is_file() and options.profile is None):
        return None
    origin, domain = _validation(bundle.model.source, options)
    check_classes(bundle.model, domain)
    return scored_images(origin, domain, len(bundle.classes))


def _validation(source: str, options: _Options) -> tuple[Origin, Domain]:
    """Where the settings' datasets lie, and which of them a source's students are validated on."""
    from gkd_core.stages.recipe import Recipe

    recipe = Recipe.of(read_settings(options.profile, options.set_))
    return recipe.origin(Path.cwd()), recipe.measured_domains(source)[0]


def _described(program: Program) -> str:
    opset = f", opset {program.opset}" if program.opset is not None else ""
    kind = "uint8 (B, H, W, 3) to classes" if program.takes == "classes-of-bytes" else "float32 (B, 3, H, W) in 0..1 to logits"
    if program.size is None:
        sizes = f"any batch, sides that are multiples of {program.multiple} from {program.smallest} on"
    else:
        sizes = f"any batch, {program.size[0]} × {program.size[1]} pixels alone, as {program.fixed_because}"
    return f"{program.format}{opset}, {program.precision}, {kind}; {sizes}"
