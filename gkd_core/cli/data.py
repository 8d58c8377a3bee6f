"""The commands `gkd data …`: which datasets there are, whether they are whole, and what they look like."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gkd_core.cli.options import Profile, Set, read_settings

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
