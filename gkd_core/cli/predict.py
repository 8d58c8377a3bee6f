"""The command `gkd predict`: label maps of anybody's images."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from gkd_core.cli.options import Profile, Set, read_settings
from gkd_core.errors import EXIT_USER_ERROR, SettingsError
from gkd_core.paths import PARAMS

if TYPE_CHECKING:
    from gkd_core.data.catalog.entries import Protocol
    from gkd_core.predict.loop import Tally
    from gkd_core.predict.student import Segmentor

EXAMPLE = "gkd predict student.gkd photographs -o masks --overlay"
OWN_SIZE = "none"


def predict(
    model: Annotated[
        str, typer.Argument(help="A bundle, the folder of a segmentor, or an MLflow address such as models:/NAME@champion.")
    ],
    images: Annotated[
        list[str],
        typer.Argument(metavar="IMAGES...", help="Images, videos, folders with all below, globs, lists (.txt, a path a line)."),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for label maps and predictions.csv: a new one.")],
    device: Annotated[str, typer.Option(help="auto takes a GPU where there is one; or cpu, cuda, cuda:1.")] = "auto",
    batch: Annotated[int, typer.Option(min=1, max=4096, help="Images of one size that are seen at once.")] = 1,
    threads: Annotated[
        int | None,
        typer.Option(min=1, max=4096, help="Threads on a CPU; those that the scores were measured with, if not given."),
    ] = None,
    ids: Annotated[
        Literal["train", "dataset"],
        typer.Option(help="Values of label maps: train ids, or those of the source's own label files."),
    ] = "train",
    overlay: Annotated[
        bool, typer.Option("--overlay", help="Also write the images with the classes' colours over them.")
    ] = False,
    confidence: Annotated[bool, typer.Option("--confidence", help="Also write how sure it is of each pixel.")] = False,
    probabilities: Annotated[
        bool, typer.Option("--probabilities", help="Also write the probability of each class in each pixel.")
    ] = False,
    every: Annotated[int, typer.Option(min=1, help="Of a video, each so many-th frame.")] = 1,
    seen_as: Annotated[
        str | None,
        typer.Option(
            help=f"See images at the size of a dataset/split of the catalog; {OWN_SIZE}: at their own. Else as the source's."
        ),
    ] = None,
    report: Annotated[
        bool,
        typer.Option(
            "--report",
            help="Also write report.html: how far the images are from those that the student knows, and which are furthest.",
        ),
    ] = False,
    replace: Annotated[bool, typer.Option("--replace", help="Remove what an earlier call wrote to the output first.")] = False,
    profile: Profile = None,
    set_: Set = None,
) -> None:
    """Write the classes of images as label maps, with a table of what is in each.

    A damaged image is named and skipped, the others go on; the exit code is 2 then. Profile and settings are for a segmentor that
    is no bundle.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    import torch

    from gkd_core.predict.inputs import find_inputs
    from gkd_core.predict.loop import Work, predict_inputs
    from gkd_core.predict.outputs import REPORT, TABLE, Outputs, Wanted, check_ids, open_output, open_table
    from gkd_core.training.progress import progress
    from gkd_core.untrusted import given_path

    folder = given_path(output)
    student = _open(model, device, seen_as, profile, set_)
    if report and student.known is None:
        raise SettingsError(
            f"--report: {model} has no statistics of the images that it knows; make a bundle with them: "
            "gkd bundle SEGMENTOR -o student.gkd --known-images 1000"
        )
    inputs = find_inputs(images, folder)
    own = check_ids(student.bundle.ids, student.classes) if ids == "dataset" else None
    open_output(folder, replace)
    torch.set_num_threads(threads or student.bundle.view.threads)
    outputs = Outputs(folder, Wanted(own, overlay, confidence, probabilities))
    parts = () if student.known is None else tuple(student.known.parts)
    with open_table(folder, student.classes, parts) as table, progress("predict", len(inputs), unit="images") as advance:
        say = lambda line: typer.echo(f"gkd: {line}", err=True)  # noqa: E731
        tally = predict_inputs(Work(student, outputs, table, batch, every, advance, say), inputs)
    if report and tally.answered and student.known is not None:
        from gkd_core.reports.field import write_field_report

        write_field_report(folder / TABLE, student.bundle, student.known, folder / REPORT)
    _summarise(tally, len(inputs), output)


def _open(model: str, device: str, seen_as: str | None, profile: str | None, set_: list[str] | None) -> Segmentor:
    """The student that a bundle, a folder or an address names, seeing images as it is asked to."""
    from gkd_core.cli.opening import is_bundle, open_student
    from gkd_core.predict.bundle import open_known
    from gkd_core.predict.student import Segmentor, device_named
    from gkd_core.untrusted import given_path

    place = device_named(device)
    bundle, network = open_student(model, profile, set_)
    known = open_known(given_path(model), bundle, network) if is_bundle(model) else None
    if seen_as is not None:
        view = bundle.view.model_copy(update={"protocol": _protocol(seen_as, profile, set_)})
        bundle = bundle.model_copy(update={"view": view})
    return Segmentor(bundle, network, place, known)


def _protocol(seen_as: str, profile: str | None, set_: list[str] | None) -> Protocol:
    """How the catalog, the shipped one or that of the settings where there are any, has the images of a `dataset/split` shown."""
    from gkd_core.data.catalog.load import Protocol, load_catalog

    if seen_as == OWN_SIZE:
        return Protocol()
    catalogs = read_settings(profile, set_).data.catalogs if PARAMS.is_file() or profile else ()
    return load_catalog(catalogs).domain(seen_as).entry.protocol


def _summarise(tally: Tally, inputs: int, output: Path) -> None:
    """Say how it went; exit where an input was refused."""
    typer.echo(f"{output}: {tally.answered} label maps in {tally.seconds:.1f} s ({tally.rate:.2f} images/s), predictions.csv")
    if tally.failed:
        typer.echo(f"gkd: {tally.failed} of {inputs} could not be read or written, each named above", err=True)
        raise typer.Exit(EXIT_USER_ERROR)
