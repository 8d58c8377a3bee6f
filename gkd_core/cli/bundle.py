"""The command `gkd bundle`: a student to take away."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gkd_core.cli.options import Profile, Set, read_settings

if TYPE_CHECKING:
    from gkd_core.predict.known import Known
    from gkd_core.predict.manifest import Bundle
    from gkd_core.stages.recipe import Recipe

EXAMPLE = "gkd bundle artifacts/learn-task/gta5 -o student.gkd --scores artifacts/evaluate/gta5"


def bundle(
    model: Annotated[
        str,
        typer.Argument(
            metavar="SEGMENTOR",
            help="Folder of a segmentor, or its MLflow address: models:/NAME@ALIAS, models:/NAME/VERSION, runs:/…",
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to write; an older bundle there is replaced.")],
    scores: Annotated[
        Path | None, typer.Option("--scores", help="Its scores.json, or the folder of it, to be told with it.")
    ] = None,
    latency: Annotated[
        Path | None, typer.Option("--latency", help="Its record of `gkd latency --output`, to be told with it.")
    ] = None,
    known_images: Annotated[
        int | None,
        typer.Option(
            min=2,
            help="Look at so many images of source, validation and proxy, and store what they are like: `gkd predict` then says "
            "how far an image is from them. Needs the data.",
        ),
    ] = None,
    profile: Profile = None,
    set_: Set = None,
) -> None:
    """Write a student as a folder that opens without recipe, catalog or project: safetensors, manifest and model card.

    The settings say how it sees an image, and where the ids of the source's own labels are found.
    """
    from gkd_core.predict.bundle import check_replaceable, write_bundle
    from gkd_core.predict.latency import read_latency
    from gkd_core.stages.bundle import describe, read_scores, size_of
    from gkd_core.stages.measure import segmentor_folder
    from gkd_core.stages.recipe import Recipe
    from gkd_core.untrusted import given_path

    target = given_path(output)
    check_replaceable(target)
    settings = read_settings(profile, set_)
    folder = segmentor_folder(model, settings, Path.cwd())
    told = read_scores(scores) if scores is not None else ()
    measured = None if latency is None else read_latency(latency)
    recipe = Recipe.of(settings)
    described = describe(folder, recipe, Path.cwd(), told, measured, size_of(folder, settings))
    known = None if known_images is None else _known(folder, described, recipe, known_images)
    written = write_bundle(described, folder / described.model.weights, target, known)
    size = sum(file.size for file in written.files)
    typer.echo(f"wrote {output}: {written.model.encoder.arch} from {written.model.source}, {len(written.classes)} classes, "
               f"{size / 2**20:.1f} MiB")  # fmt: skip
    typer.echo(f"use it: gkd predict {output} IMAGES… -o masks")


def _known(folder: Path, bundle: Bundle, recipe: Recipe, most: int) -> Known:
    """What the images are like that the student learnt from, where the settings have them."""
    import torch

    from gkd_core.models.segmentor import load_segmentor
    from gkd_core.predict.student import Segmentor
    from gkd_core.stages.known import known_images
    from gkd_core.stages.machine import device_of
    from gkd_core.training.progress import progress

    torch.set_num_threads(recipe.settings.compute.threads)
    student = Segmentor(bundle, load_segmentor(folder), torch.device(device_of(recipe.settings)))
    return known_images(student, recipe, Path.cwd(), most, lambda images: progress("known images", images, unit="images"))
