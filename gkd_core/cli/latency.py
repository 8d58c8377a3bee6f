"""The command `gkd latency`: what a student takes, and what it saves against another model."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gkd_core.cli.options import Profile, Set, read_settings

if TYPE_CHECKING:
    from gkd_core.predict.latency import Latency
    from gkd_core.predict.manifest import View
    from gkd_core.predict.timing import Subject

EXAMPLE = "gkd latency student.gkd --against teacher --profile demo --output latency.json"
TEACHER = "teacher"  # in the place of a model: that of the settings
LARGEST_SIDE = 2**14
WIDTH = 150


def latency(
    model: Annotated[
        str, typer.Argument(help="A bundle, the folder of a segmentor, or an MLflow address such as models:/NAME@champion.")
    ],
    against: Annotated[
        str | None,
        typer.Option(help=f"Another of these; or an encoder's folder, or {TEACHER} (the settings'): under the model's decoder."),
    ] = None,
    size: Annotated[
        str | None, typer.Option(metavar="HxW", help="Size of images in pixels, such as 512x1024; else the model's window.")
    ] = None,
    batch: Annotated[int, typer.Option(min=1, max=4096, help="Images of a pass.")] = 1,
    threads: Annotated[
        int | None,
        typer.Option(min=1, max=4096, help="Threads on a CPU; those that the scores were measured with, if not given."),
    ] = None,
    device: Annotated[str, typer.Option(help="auto takes a GPU where there is one; or cpu, cuda, cuda:1.")] = "auto",
    repeats: Annotated[int, typer.Option(min=2, max=100_000, help="Timed passes of each model, in turn.")] = 20,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Also write the record to this file, as JSON.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the record as JSON instead.")] = False,
    profile: Profile = None,
    set_: Set = None,
) -> None:
    """Measure what a student takes for an image of noise: median, p95, images/s, peak memory, FLOPs and parameters.

    With --against, another model in turn with it, and the ratio. `gkd bundle --latency FILE` puts the record into the model card.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from gkd_core.predict.timing import Conditions, latency_device, measure_latency
    from gkd_core.training.progress import progress
    from gkd_core.untrusted import given_path

    asked = None if size is None else size_named(size)
    target = None if output is None else given_path(output)
    place = latency_device(device)
    student, view = _student(model, profile, set_)
    other = None if against is None else _other(against, student, profile, set_)
    conditions = Conditions(asked or view.window, batch, threads or view.threads, repeats, place)
    found = measure_latency(student, other, conditions, lambda rounds: progress("latency", rounds, unit="rounds"))
    if target is not None:
        found.write(target)
    if as_json:
        typer.echo(found.model_dump_json(indent=2))
        return
    _print(found, student.title, "" if other is None else other.title)
    if output is not None:
        typer.echo(f"wrote {output}: gkd bundle … --latency {output} puts it into the model card")


def size_named(text: str) -> tuple[int, int]:
    """The size (height, width) in pixels that `HxW` says; `SettingsError` where it says none."""
    from gkd_core.errors import SettingsError
    from gkd_core.messages import given_value

    found = re.fullmatch(r"([0-9]{1,5})[x×]([0-9]{1,5})", text)
    height, width = (int(side) for side in found.groups()) if found else (0, 0)
    if not (0 < height <= LARGEST_SIDE and 0 < width <= LARGEST_SIDE):
        raise SettingsError(
            f"--size: given {given_value(text)}; expected HEIGHTxWIDTH in pixels, such as 512x1024, each 1 to {LARGEST_SIDE}"
        )
    return height, width


def _student(model: str, profile: str | None, set_: list[str] | None) -> tuple[Subject, View]:
    """A segmentor, and how it sees an image."""
    from gkd_core.cli.opening import open_student
    from gkd_core.messages import shown
    from gkd_core.predict.timing import Subject

    bundle, network = open_student(model, profile, set_)
    subject = Subject(shown(model, 60), bundle.model, network, bundle.view.precision, bundle.model.sha256)
    return subject, bundle.view


def _other(model: str, student: Subject, profile: str | None, set_: list[str] | None) -> Subject:
    """What the student is held against: a segmentor; or the settings' teacher, or the encoder of a folder, under its decoder."""
    from gkd_core.cli.opening import kind_named
    from gkd_core.messages import shown
    from gkd_core.predict.timing import with_encoder
    from gkd_core.records import MANIFEST, EncoderCheckpoint
    from gkd_core.untrusted import given_path

    if model == TEACHER:
        return with_encoder(student, read_settings(profile, set_).teacher, TEACHER)
    if kind_named(model) == "encoder":
        return with_encoder(student, EncoderCheckpoint.read(given_path(model) / MANIFEST).encoder, shown(model, 60))
    return _student(model, profile, set_)[0]


def _print(found: Latency, model: str, against: str) -> None:
    """Print a line a model, their ratio, and under which conditions it is so."""
    from rich.console import Console
    from rich.table import Table

    from gkd_core.predict.latency import COLUMNS, conditions_of, rows_of

    grid = Table()
    grid.add_column("model")
    for column in COLUMNS:
        grid.add_column(column, justify="right")
    names = [f"{title}\n({each.words})" for title, each in ((model, found.model), (against, found.against)) if each is not None]
    for row in rows_of(found, names[0], names[-1]):
        grid.add_row(*row)
    console = Console(markup=False) if sys.stdout.isatty() else Console(width=WIDTH, markup=False)
    console.print(grid)
    typer.echo(conditions_of(found))
