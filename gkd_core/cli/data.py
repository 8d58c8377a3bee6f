"""The commands `gkd data …`: which datasets there are, whether they are whole, and what they look like."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gkd_core.cli import pins
from gkd_core.cli.options import Profile, Set, read_settings
from gkd_core.errors import EXIT_USER_ERROR

if TYPE_CHECKING:
    from gkd_core.data.catalog.load import Domain
    from gkd_core.stages import Recipe

Domains = Annotated[
    list[str] | None, typer.Argument(metavar="[DOMAIN]...", help="As dataset/split; without any, all that the run reads.")
]
Jobs = Annotated[
    int | None, typer.Option("--jobs", min=1, help="Processes that read files; as many as there are cores, if not given.")
]

data_app = typer.Typer(
    name="data",
    no_args_is_help=True,
    help="Datasets: describe, list, check, look at, prepare and pin them.",
)


@data_app.callback()
def _group() -> None:
    """Typer makes a group of one command that command itself, unless the group has a callback."""


@data_app.command("list", epilog="Example: gkd data list --profile camvid")
def list_(
    profile: Profile = None,
    set_: Set = None,
    all_: Annotated[bool, typer.Option("--all", help="Every dataset of the catalog, not only those that the run reads.")] = False,
) -> None:
    """List the dataset splits that a run reads: how many images are stated and found, and where they lie."""
    from gkd_core.data.tables import print_domains
    from gkd_core.stages import Recipe

    recipe = Recipe.of(read_settings(profile, set_))
    print_domains(recipe.catalog.domains if all_ else recipe.domains, recipe.origin(Path()))


@data_app.command(epilog="Example: gkd data describe /data/mine > mine.yaml")
def describe(
    folder: Annotated[Path, typer.Argument(help="Folder with images, and labels if there are any.")],
    every: Annotated[
        bool, typer.Option("--all", help="Count the values of every label file, where there are many; else of a sample.")
    ] = False,
) -> None:
    """Look at a folder of images and labels and print a catalog entry to start from; only its classes are to be named.

    What cannot be guessed, or read, stands in lines that begin with `# FILL IN`: exit code 2 then.
    """
    from gkd_core.data.describe.describing import describe as described
    from gkd_core.untrusted import given_path

    draft = described(given_path(folder), every)
    typer.echo(draft.text, nl=False)
    if draft.gaps:
        typer.echo(f"gkd: FILL IN ({len(draft.gaps)}): what could not be guessed, or read", err=True)
        raise typer.Exit(EXIT_USER_ERROR)


@data_app.command(epilog="Example: gkd data verify camvid/dusk --profile camvid --set data.root=/data")
def verify(
    domains: Domains = None,
    profile: Profile = None,
    set_: Set = None,
    jobs: Jobs = None,
    report: Annotated[Path | None, typer.Option("--report", help="Write all findings to this file, as JSON.")] = None,
) -> None:
    """Read every image and label and report all that is wrong: exit code 2 if there is an error, 0 if there are only warnings."""
    from gkd_core.data.verify.run import usable_processes
    from gkd_core.data.verify.run import verify as verify_domains
    from gkd_core.stages.origin import data_root
    from gkd_core.training.progress import progress

    recipe, chosen = _chosen(domains, profile, set_)
    found = verify_domains(chosen, data_root(recipe.settings), jobs or usable_processes(), progress)
    for line in found.lines():
        typer.echo(line)
    if report is not None:
        found.write(report)
    if found.count("error"):
        raise typer.Exit(EXIT_USER_ERROR)


@data_app.command(epilog="Example: gkd data stats --profile camvid --set data.root=/data")
def stats(
    domains: Domains = None,
    profile: Profile = None,
    set_: Set = None,
    jobs: Jobs = None,
    json_: Annotated[bool, typer.Option("--json", help="Print all figures as JSON.")] = False,
) -> None:
    """Read every image and label and print how many there are, their sizes, and each class's share of the pixels."""
    import json

    from gkd_core.data.stats import print_stats, summarize
    from gkd_core.data.verify.run import read_domains, usable_processes
    from gkd_core.stages.origin import data_root
    from gkd_core.training.progress import progress

    recipe, chosen = _chosen(domains, profile, set_)
    found = read_domains(chosen, data_root(recipe.settings), jobs or usable_processes(), progress)
    figures = [summarize(domain) for domain in found]
    if json_:
        typer.echo(json.dumps({figure.domain: figure.as_tree() for figure in figures}, indent=1))
    else:
        print_stats(figures)
    errors = sum(fault.kind.severity == "error" for domain in found for fault in domain.faults)
    if errors:
        typer.echo(f"{errors} errors are left out of these figures; `gkd data verify` tells which", err=True)


@data_app.command(epilog="Example: gkd data show camvid/dusk --output dusk.png --profile camvid --set data.root=/data")
def show(
    output: Annotated[Path, typer.Option("--output", "-o", help="The PNG to write.")],
    domains: Domains = None,
    profile: Profile = None,
    set_: Set = None,
    images: Annotated[int, typer.Option("--images", min=1, help="Images of each domain.")] = 4,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Chooses the images.")] = 0,
) -> None:
    """Draw a few images of each domain above their labels in the colours of their classes, with a legend."""
    from gkd_core.data.gallery import draw_sample, save_samples

    recipe, chosen = _chosen(domains, profile, set_)
    origin = recipe.origin(Path())
    save_samples([draw_sample(domain, origin, images, seed) for domain in chosen], output)
    typer.echo(f"wrote {output}")


@data_app.command(epilog="Example: gkd data prepare --output /shards --profile camvid --set data.root=/data")
def prepare(
    output: Annotated[Path, typer.Option("--output", help="Folder for the shards, to be named by data.shards.")],
    domains: Domains = None,
    profile: Profile = None,
    set_: Set = None,
    jobs: Jobs = None,
    shard_size: Annotated[int, typer.Option("--shard-size", min=1, help="Size of a shard, about, in MB.")] = 128,
    shrink: Annotated[
        bool, typer.Option("--shrink", help="Bring splits that the run only evaluates to the size at which they are shown.")
    ] = False,
) -> None:
    """Write datasets as tar shards with an index: labels as train ids, images as they are, or cut into the entry's tiles.

    Stopped and run again, it goes on; what is up to date is left alone.
    """
    import os

    from gkd_core.data.preparing.building import prepare_domains
    from gkd_core.stages.origin import data_root
    from gkd_core.training.progress import progress

    recipe, chosen = _chosen(domains, profile, set_)
    trained = {domain.reference for domain in recipe.trained_domains}
    prepare_domains(
        chosen,
        data_root(recipe.settings),
        output,
        shrunk=[domain.reference for domain in chosen if shrink and domain.reference not in trained],
        shard_bytes=shard_size * 1_000_000,
        jobs=jobs or os.cpu_count() or 1,
        bar=progress,
        say=typer.echo,
    )


def _chosen(domains: list[str] | None, profile: str | None, overrides: list[str] | None) -> tuple[Recipe, list[Domain]]:
    """The recipe, and the domains asked for, else all that the run reads."""
    from gkd_core.stages import Recipe

    recipe = Recipe.of(read_settings(profile, overrides))
    return recipe, [recipe.catalog.domain(name) for name in dict.fromkeys(domains)] if domains else recipe.domains


data_app.command("add", epilog=f"Example: {pins.ADD_EXAMPLE}")(pins.add)
data_app.command("pin", epilog="Example: gkd data pin camvid --profile camvid --set data.root=data")(pins.pin)
data_app.command("fetch", epilog="Example: gkd data fetch && dvc repro")(pins.fetch)
