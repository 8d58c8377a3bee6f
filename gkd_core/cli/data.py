"""The commands `gkd data …`: which datasets there are, whether they are whole, and what they look like."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gkd_core.cli.options import Profile, Set, read_settings

Domains = Annotated[
    list[str] | None, typer.Argument(metavar="[DOMAIN]...", help="As dataset/split; without any, all that the run reads.")
]
Jobs = Annotated[
    int | None, typer.Option("--jobs", min=1, help="Processes that read files; as many as there are cores, if not given.")
]

data_app = typer.Typer(
    name="data",
    no_args_is_help=True,
    help="Datasets: list, check, look at, prepare and pin them.",
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
    from gkd_core.data.catalog import load_catalog
    from gkd_core.data.listing import print_domains
    from gkd_core.stages.recipe import all_domains, data_origin

    settings = read_settings(profile, set_)
    catalog = load_catalog(settings.data.catalogs)
    references = (
        [f"{name}/{split}" for name, entry in catalog.datasets.items() for split in entry.splits]
        if all_
        else all_domains(settings, catalog)
    )
    print_domains(catalog, references, data_origin(settings, Path()))


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

    from gkd_core.data.catalog import load_catalog
    from gkd_core.data.preparing.command import prepare_domains
    from gkd_core.stages.recipe import all_domains, data_root, trained_domains
    from gkd_core.training.progress import progress

    settings = read_settings(profile, set_)
    catalog = load_catalog(settings.data.catalogs)
    references = list(dict.fromkeys(domains or all_domains(settings, catalog)))
    trained = trained_domains(settings, catalog)
    prepare_domains(
        catalog,
        references,
        data_root(settings),
        output,
        shrunk=[name for name in references if shrink and name not in trained],
        shard_bytes=shard_size * 1_000_000,
        jobs=jobs or os.cpu_count() or 1,
        bar=progress,
        say=typer.echo,
    )
