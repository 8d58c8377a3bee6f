"""The commands `gkd metrics …`: the platform, for a Prometheus to watch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

PORT = 9464
metrics_app = typer.Typer(
    name="metrics", no_args_is_help=True, help="The platform, for a Prometheus to watch (docs/monitoring.md)."
)


@metrics_app.callback()
def _group() -> None:
    """Typer makes a group of one command that command itself, unless the group has a callback."""


@metrics_app.command(epilog="Example: gkd metrics serve --port 9464")
def serve(
    host: Annotated[str, typer.Option(help="Address to listen at.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen at.")] = PORT,
    experiment: Annotated[str, typer.Option(help="Experiment of MLflow.")] = "gkd",
    models: Annotated[str, typer.Option(help="What the names of registered models begin with.")] = "gkd-student",
    pool: Annotated[str, typer.Option(help="Work pool of Prefect.")] = "gkd",
) -> None:
    """Answer scrapes at /metrics: progress of stages, the newest matrix, champions, Prefect's runs and workers.

    MLFLOW_TRACKING_URI names MLflow (unset: the project's store here), PREFECT_API_URL Prefect (unset: left out).
    """
    from gkd_core.operations.metrics.exporter import Watched, serve
    from gkd_core.storage.mlflow_store import tracking_address

    address = tracking_address(None, Path.cwd())
    typer.echo(f"metrics at http://{host}:{port}/metrics")
    serve(Watched(address, experiment, models, pool), host, port)
