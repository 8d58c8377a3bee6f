"""The commands `gkd infra backup` and those around it: backups of the platform's records and files, and restores."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from gkd_core.operations.backup.make import Part

MEBI = 2**20
Place = Annotated[str, typer.Argument(help="Where backups lie: s3://bucket/prefix, or a folder.")]
Bucket = Annotated[
    list[str] | None,
    typer.Option(
        help="Bucket whose objects belong to it, scratch/ left out; can be repeated. None: artifacts/mlflow/artifacts here."
    ),
]
Name = Annotated[str | None, typer.Option("--backup", help="Name of the backup; the newest where left out.")]


def backup(place: Place, bucket: Bucket = None) -> None:
    """Copy the platform's records to a folder or a bucket, while it runs: the databases, then the files they name.

    GKD_DATABASE_URL names PostgreSQL's server (PGPASSWORD has the password); unset, the project's SQLite files are meant. Only
    what no backup there has yet is copied. It is a backup once the last line says so.
    """
    from gkd_core.operations.backup.backup_store import open_backup_store
    from gkd_core.operations.backup.make import Part, back_up
    from gkd_core.operations.backup.seal import key_file, newest_proven, seal
    from gkd_core.operations.backup.stores import stores_of

    backup_store = open_backup_store(place)
    for done in back_up(stores_of(Path.cwd(), bucket or ()), backup_store, newest_proven(backup_store, key_file())):
        if isinstance(done, Part):
            typer.echo(_line(done))
        else:
            # Beside the lines that programs read.
            typer.echo(f"manifest's SHA-256, to keep apart: {seal(backup_store, done, key_file())}", err=True)
            typer.echo(f"backup {done}: whole")


def restore(
    place: Place,
    name: Name = None,
    bucket: Bucket = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="Over what is there: databases and files of the same name go.")
    ] = False,
    manifest_sha256: Annotated[
        str | None, typer.Option(help="SHA-256 of the manifest, as `backup` printed it: where the key of its seal is not here.")
    ] = None,
) -> None:
    """Put a backup in place, with the servers stopped: all of it is read and judged first, then files, then databases at once.

    It must be sealed by the key that GKD_BACKUP_KEY_FILE names (else ~/.config/gkd/backup.key, which the first backup makes).
    The same variables and buckets as for `backup`. The databases must be there, empty: `gkd infra bootstrap`.
    """
    from gkd_core.operations.backup import restore as restoring
    from gkd_core.operations.backup.backup_store import open_backup_store
    from gkd_core.operations.backup.seal import check_seal, key_file
    from gkd_core.operations.backup.stores import stores_of

    backup_store = open_backup_store(place)
    name = name or backup_store.newest()
    found = check_seal(backup_store, name, key_file(), manifest_sha256)
    for part in restoring.restore(stores_of(Path.cwd(), bucket or ()), backup_store, found, replace):
        typer.echo(_line(part))
    typer.echo(f"backup {name}: restored")


def backups(place: Place) -> None:
    """List whole backups, the oldest first: name, size of what it names, versions of the stack."""
    from gkd_core.operations.backup.backup_store import open_backup_store

    backup_store = open_backup_store(place)
    for name in backup_store.names():
        found = backup_store.read(name)
        stack = ", ".join(f"{package} {version}" for package, version in found.versions.items())
        typer.echo(f"{name}  {_size(sum(found.contents.values()))}  {stack}")
    if not backup_store.names():
        typer.echo(f"no whole backup in {backup_store}")


def check_backup(place: Place, name: Name = None) -> None:
    """Read the whole of a backup and hold it against its digests, without touching anything."""
    from gkd_core.operations.backup.backup_store import open_backup_store
    from gkd_core.operations.backup.restore import check_backup

    backup_store = open_backup_store(place)
    name = name or backup_store.newest()
    check_backup(backup_store, backup_store.read(name))
    typer.echo(f"backup {name}: whole and undamaged")


def prune(place: Place, keep: Annotated[int, typer.Option(min=1, help="How many of the newest proven backups stay.")]) -> None:
    """Remove all but the newest backups, and contents that none of these names; not while a backup is made.

    Only backups that are sealed by the key that GKD_BACKUP_KEY_FILE names (else ~/.config/gkd/backup.key) count as kept.
    """
    from gkd_core.operations.backup import retention
    from gkd_core.operations.backup.backup_store import open_backup_store
    from gkd_core.operations.backup.seal import key_file

    done = retention.prune(open_backup_store(place), keep, key_file())
    for name in done.backups:
        typer.echo(f"backup {name}: removed")
    for name in done.uncounted:
        typer.echo(f"backup {name}: stays and is not counted: nothing proves who made it", err=True)
    typer.echo(f"{done.contents} contents removed, {_size(done.size)}")


def _line(part: Part) -> str:
    files = f"{part.files} file{'s' if part.files != 1 else ''}, {part.copied} of them copied now"
    return f"{part.name}: {_size(part.size)}, {files}"


def _size(size: int) -> str:
    return f"{size / MEBI:.1f} MiB"
