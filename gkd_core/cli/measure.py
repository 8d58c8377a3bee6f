"""The command `gkd measure`: scores a segmentor on chosen domains."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from gkd_core.cli.options import Profile, Set, read_settings

EXAMPLE = "gkd measure models:/gkd-student-gta5@champion --domain acdc-night/val --output artifacts/night"


def measure(
    model: Annotated[
        str,
        typer.Argument(help="Folder of a segmentor, or its MLflow address: models:/NAME@ALIAS, models:/NAME/VERSION, runs:/…"),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the report and scores.json.")],
    domains: Annotated[
        list[str] | None,
        typer.Option("--domain", help="A dataset/split or a benchmark. Can be repeated; without it, the model's own benchmarks."),
    ] = None,
    profile: Profile = None,
    set_: Set = None,
) -> None:
    """Measure a segmentor on domains, without training; the settings say where the data lie and how images are seen."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from gkd_core.paths import SCORES
    from gkd_core.records import ScoreTable
    from gkd_core.reports.terminal import print_matrix
    from gkd_core.stages.measure import measure_on, measure_run, segmentor_folder
    from gkd_core.stages.recipe import Recipe
    from gkd_core.stages.work import Context

    settings = read_settings(profile, set_)
    run = measure_run(segmentor_folder(model, settings, Path.cwd()), output)
    measure_on(Context(Recipe.of(settings), run, Path.cwd()), domains or [])
    print_matrix(ScoreTable.read(output / SCORES))
