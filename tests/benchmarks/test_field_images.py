"""The ranking of domains by distance: of every student and domain of a run, with its measured scores, ranks as defined."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from benchmarks.field_images import Line, _rho, main
from gkd_core.paths import PARAMS
from gkd_core.settings import Settings, dump_settings
from gkd_core.stages import Recipe, run_stage


def test_every_domain_of_a_run_has_its_line(tiny_settings: Settings, tmp_path: Path) -> None:
    data = tiny_settings.data.model_copy(update={"benchmarks": ("P2R",)})
    settings = tiny_settings.model_copy(update={"data": data})
    (tmp_path / PARAMS).write_text(dump_settings(settings))
    recipe = Recipe.of(settings)
    for run in recipe.plan:
        run_stage(recipe, run, tmp_path)
    main(tmp_path, tmp_path / "ranking", 100)
    text = (tmp_path / "ranking/ranking.md").read_text()
    with (tmp_path / "artifacts/report/matrix.csv").open() as stream:
        scores = {row["domain"]: float(row["miou"]) for row in csv.DictReader(stream)}
    lines = {cells[1]: cells for line in text.splitlines() if (cells := line.strip("| ").split(" | "))[0] == "potsdam-rgb"}
    for domain, miou in scores.items():
        assert float(lines[domain][3]) == pytest.approx(miou, abs=0.06)
    assert float(lines["in-domain"][4]) == pytest.approx(1, abs=0.5), "the images that distances are judged by"
    assert (tmp_path / "ranking/ranking.png").stat().st_size > 1000


def test_a_distance_that_grows_as_the_score_falls_has_a_correlation_of_minus_one() -> None:
    lines = [Line("s", str(index), False, 1, 90 - index, 1 + index**2, 9 - index) for index in range(4)]
    assert (_rho(lines, "from_source"), _rho(lines, "from_nearest")) == ("-1.00", "+1.00")
    assert _rho(lines[:2], "from_source") == "–"
