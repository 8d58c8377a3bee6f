"""The command `gkd new`: a project of one's own."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from gkd_core.cli.options import Set

EXAMPLE = "gkd new my-project --profile demo"


def new(
    project: Annotated[Path, typer.Argument(help="The folder to make; one that is there must be empty.")],
    profile: Annotated[str, typer.Option("--profile", help="Shipped profile that its params.yaml begins with.")] = "demo",
    set_: Set = None,
) -> None:
    """Lay out a project: params.yaml, dvc.yaml, prefect.yaml, a catalog for its own datasets, a README with the next commands."""
    from gkd_core.messages import shown
    from gkd_core.settings import load_settings
    from gkd_core.untrusted import given_path
    from gkd_core.versioning.project import lay_out

    folder = given_path(project)
    lay_out(folder, load_settings(None, profile, set_ or []))
    go = shown(shlex.quote(str(project)))
    typer.echo(f"{shown(str(folder))}: a project of the profile {profile}. Next: cd {go} && gkd plan")
