"""The commands `gkd data …`: which datasets there are, whether they are whole, and what they look like."""

from __future__ import annotations

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
    from gkd_core.stages.recipe import all_domains, data_root

    settings = read_settings(profile, set_)
    catalog = load_catalog(settings.data.catalogs)
    references = (
        [f"{name}/{split}" for name, entry in catalog.datasets.items() for split in entry.splits]
        if all_
        else all_domains(settings, catalog)
    )
    print_domains(catalog, references, data_root(settings))


@data_app.command(epilog="Example: gkd data add camvid /mnt/camvid --profile camvid, or gkd data add gta5 s3://bucket/raw/gta5")
def add(
    name: Annotated[str, typer.Argument(help="Dataset of the catalog.")],
    source: Annotated[str, typer.Argument(metavar="PATH|S3", help="Folder of the dataset on this machine, or s3://bucket/prefix.")],
    profile: Profile = None,
    set_: Set = None,
) -> None:
    """Bring a dataset into the project and pin it; it is taken only where it is laid out as its catalog entry says."""
    from gkd_core.data.pins_table import print_next, print_pinned

    store = _store(profile, set_)
    print_pinned(store.add(name, source))
    print_next(store.path_of(name), store.root_setting)


@data_app.command(epilog="Example: gkd data pin camvid --profile camvid --set data.root=data")
def pin(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME…]", help="Datasets, or paths such as data/shards/gta5; none: all that a run reads.")
    ] = None,
    profile: Profile = None,
    set_: Set = None,
) -> None:
    """Pin datasets as they are now: their digest goes into data/NAME.dvc, which you commit to git."""
    from gkd_core.data.pins_table import print_pinned

    for pinned in _store(profile, set_).pin(names or []):
        print_pinned(pinned)


@data_app.command(epilog="Example: gkd data fetch && dvc repro")
def fetch(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME…]", help="Datasets, or paths; none: all that a run reads.")
    ] = None,
    profile: Profile = None,
    set_: Set = None,
) -> None:
    """Fetch pinned datasets that are absent, and refuse those that are not as pinned: what a flow does first."""
    from gkd_core.data.pins_table import print_fetched

    print_fetched(*_store(profile, set_).fetch(names or []))
