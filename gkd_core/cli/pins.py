"""The commands of `gkd data` for versions of datasets: add, pin and fetch."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gkd_core.cli.options import Profile, Set, read_settings

if TYPE_CHECKING:
    from gkd_core.versioning.dataset_store import DatasetStore, Pinned

ADD_EXAMPLE = "gkd data add camvid /mnt/camvid --profile camvid; or gkd data add gta5 s3://bucket/raw/gta5"
S3 = "s3://"
Names = Annotated[
    list[str] | None,
    typer.Argument(metavar="[NAME…]", help="Datasets, or paths such as data/shards/gta5; all that the run reads where left out."),
]


def add(
    name: Annotated[str, typer.Argument(help="Dataset of the catalog.")],
    source: Annotated[str, typer.Argument(metavar="PATH|s3://…", help="Folder that holds the dataset, or bucket and prefix.")],
    profile: Profile = None,
    set_: Set = None,
) -> None:
    """Bring a dataset into the project and pin it; it is taken only where it is laid out as its catalog entry says."""
    store = _store(profile, set_)
    if source.startswith(S3):
        from gkd_core.versioning.s3_datasets import add_from_s3

        pinned = add_from_s3(store, name, source)
    else:
        pinned = store.add(name, Path(source))
    _show(pinned)
    domains = [split.domain for split in pinned.splits]
    options = ["--profile", profile] if profile else []
    for item in (*(set_ or ()), "data.world=null", f"data.root={store.root_name}"):
        options += ["--set", item]
    typer.echo(f"Check it:     {shlex.join(['gkd', 'data', 'verify', *domains, *options])}")
    typer.echo(f"Keep the pin: {shlex.join(['git', 'add', pinned.pin.file])} && git commit")
    typer.echo(f"Share it:     {shlex.join(['dvc', 'push', pinned.pin.file])}")


def pin(names: Names = None, profile: Profile = None, set_: Set = None) -> None:
    """Pin datasets as they are now: the digest of their content goes into NAME.dvc, which you commit to git."""
    pins = []
    for pinned in _store(profile, set_).pin(names or []):
        _show(pinned)
        pins.append(pinned.pin.file)
    files = shlex.join(pins)
    typer.echo(f"Keep the pins: git add {files} && git commit; share the content: dvc push {files}")


def fetch(names: Names = None, profile: Profile = None, set_: Set = None) -> None:
    """Fetch pinned datasets that are absent, and refuse those that are not as pinned: what a flow does first."""
    inputs, fetched = _store(profile, set_).fetch(names or [])
    for pin in inputs.pins:
        typer.echo(f"{pin.path}: {'fetched' if pin in fetched else 'as pinned'}, {pin.md5}, {pin.size}")
    for path in inputs.unpinned:
        typer.echo(f"{path}: not pinned")


def _store(profile: str | None, set_: list[str] | None) -> DatasetStore:
    from gkd_core.stages import Recipe
    from gkd_core.versioning.dataset_store import DatasetStore

    return DatasetStore(Path.cwd(), Recipe.of(read_settings(profile, set_)))


def _show(pinned: Pinned) -> None:
    pin = pinned.pin
    typer.echo(f"{pin.path}: pinned as {pin.md5}, {pin.size}")
    for split in pinned.splits:
        labels = "unlabelled" if split.labels is None else f"{split.labels} labels"
        typer.echo(f"    {split.domain}: {split.images} images, {labels}")
