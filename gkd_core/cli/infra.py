"""The commands `gkd infra …`: what the platform's stores need before anything runs, and their backups."""

from __future__ import annotations

from typing import Annotated

import typer

from gkd_core.cli import backup as backups

infra_app = typer.Typer(
    name="infra",
    no_args_is_help=True,
    help="Databases and buckets: set up, backed up, restored. Addresses and credentials come from the environment.",
)


@infra_app.callback()
def _group() -> None:
    """Typer makes a group of one command that command itself, unless the group has a callback."""


@infra_app.command(epilog="Example: gkd infra bootstrap --bucket gkd-data --bucket gkd-mlflow")
def bootstrap(
    bucket: Annotated[
        list[str] | None, typer.Option(help="Bucket to set up; gkd-data, gkd-mlflow and gkd-backup where left out.")
    ] = None,
) -> None:
    """Make databases, their owners and buckets, or bring them up to date; say what was done. Again, it changes nothing.

    GKD_DATABASE_URL names an administrator of PostgreSQL (PGPASSWORD has its password), GKD_PREFECT_DATABASE_PASSWORD and
    GKD_MLFLOW_DATABASE_PASSWORD are those that the services will sign in with, the AWS variables name the S3 store.
    """
    from gkd_core.operations.bootstrap.stores import BUCKETS, bootstrap_stores

    changes = 0
    for outcome in bootstrap_stores(bucket or BUCKETS):
        changes += outcome.is_change
        note = f" ({outcome.note})" if outcome.note else ""
        typer.echo(f"{outcome.feature}: {outcome.state}{note}")
    typer.echo(f"{changes} changed" if changes else "nothing changed")


@infra_app.command("tracking-user", epilog="Example: gkd infra tracking-user")
def tracking_user() -> None:
    """Make the MLflow user for flow runs (MLFLOW_TRACKING_USERNAME, MLFLOW_TRACKING_PASSWORD), or set its password.

    The same for the read-only user for metrics, where GKD_MLFLOW_METRICS_USERNAME and GKD_MLFLOW_METRICS_PASSWORD are set.
    MLFLOW_TRACKING_URI names the server, MLFLOW_AUTH_ADMIN_USERNAME and MLFLOW_AUTH_ADMIN_PASSWORD its administrator.
    """
    from gkd_core.operations.bootstrap.tracking_user import ensure_users

    for outcome in ensure_users():
        note = f" ({outcome.note})" if outcome.note else ""
        typer.echo(f"{outcome.feature}: {outcome.state}{note}")


infra_app.command(epilog="Example: gkd infra backup s3://gkd-backup/cluster --bucket gkd-mlflow --bucket gkd-data")(
    backups.backup
)
infra_app.command(epilog="Example: gkd infra restore s3://gkd-backup/cluster --bucket gkd-mlflow --bucket gkd-data")(
    backups.restore
)
infra_app.command(epilog="Example: gkd infra backups s3://gkd-backup/cluster")(backups.backups)
infra_app.command("check-backup", epilog="Example: gkd infra check-backup s3://gkd-backup/cluster")(backups.check_backup)
infra_app.command(epilog="Example: gkd infra prune s3://gkd-backup/cluster --keep 7")(backups.prune)
