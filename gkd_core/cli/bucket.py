"""The commands `gkd bucket …`: a bucket set up, and folders sent to it and fetched from it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

bucket_app = typer.Typer(
    name="bucket",
    no_args_is_help=True,
    help="Buckets: set one up, send folders to it, fetch them. Endpoint and credentials come from the AWS variables.",
)


@bucket_app.command(epilog="Example: gkd bucket bootstrap gkd-data --scratch-days 7")
def bootstrap(
    name: Annotated[str, typer.Argument(help="Name of the bucket.")],
    scratch_prefix: Annotated[str, typer.Option(help="Where checkpoints of unfinished runs lie.")] = "scratch",
    scratch_days: Annotated[int, typer.Option(min=1, help="Age in days at which these go.")] = 14,
    old_version_days: Annotated[int, typer.Option(min=1, help="Age in days at which replaced and removed versions go.")] = 90,
    aborted_upload_days: Annotated[int, typer.Option(min=1, help="Age in days at which parts of unfinished uploads go.")] = 7,
) -> None:
    """Make a bucket or bring it up to this: versions kept, scratch swept, closed to the public, encrypted. Can be repeated."""
    from rich.console import Console
    from rich.table import Table

    from gkd_core.operations.bootstrap.buckets import BucketRules, bootstrap_bucket
    from gkd_core.storage.client import connect

    rules = BucketRules(scratch_prefix, scratch_days, old_version_days, aborted_upload_days)
    table = Table(box=None, pad_edge=False, show_header=False)
    for finding in bootstrap_bucket(connect(), name, rules):
        table.add_row(finding.feature, finding.state, finding.note)
    Console(markup=False).print(table)


@bucket_app.command(epilog="Example: gkd bucket upload /data/shards s3://gkd-data/shards/v1")
def upload(
    folder: Annotated[Path, typer.Argument(help="Folder to send, with all that is in it.")],
    address: Annotated[str, typer.Argument(help="Where to: s3://bucket/prefix.")],
) -> None:
    """Send a folder, with a SHA-256 for each file. What is there already stays; indexes of shards go last."""
    from gkd_core.data.files.shards import INDEX
    from gkd_core.storage.client import connect
    from gkd_core.storage.keys import Location
    from gkd_core.storage.trees import upload_tree

    place = Location.parse(address)
    indexes = [path.relative_to(folder).as_posix() for path in folder.rglob(INDEX)]
    moved = upload_tree(connect(), folder, place, last=indexes)
    typer.echo(f"{place}: {moved.files} files, {moved.moved} of them sent now")


@bucket_app.command(epilog="Example: gkd bucket download s3://gkd-data/shards/v1 /data/shards")
def download(
    address: Annotated[str, typer.Argument(help="Where from: s3://bucket/prefix.")],
    folder: Annotated[Path, typer.Argument(help="Folder to fill.")],
) -> None:
    """Fetch all below a prefix, each file checked by its SHA-256. Files that exist already stay."""
    from gkd_core.storage.client import connect
    from gkd_core.storage.keys import Location
    from gkd_core.storage.trees import download_tree

    place = Location.parse(address)
    moved = download_tree(connect(), place, folder)
    typer.echo(f"{folder}: {moved.files} files, {moved.moved} of them fetched now")
    if moved.unverified:
        typer.echo(f"{moved.unverified} of them have no SHA-256 in the bucket: only their sizes could be checked")
