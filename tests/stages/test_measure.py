"""A finished segmentor measured on chosen domains, and how long stages are."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from gkd_core.data.catalog.load import Catalog, load_catalog
from gkd_core.errors import DataError, GkdError
from gkd_core.evaluate.places import Place, places
from gkd_core.records import MANIFEST, ScoreTable, SegmentorCheckpoint
from gkd_core.settings import Settings, dump_settings, load_settings
from gkd_core.stages import Recipe, run_folder, run_stage
from gkd_core.stages.length import Length, length_of
from gkd_core.stages.measure import measure_on, measure_run, segmentor_folder
from gkd_core.stages.work import Context

SOURCE = "potsdam-rgb"


@pytest.fixture(scope="module")
def settings(tiny_settings: Settings) -> Settings:
    tree = tiny_settings.model_dump(mode="json")
    return load_settings(None, None, ["method=no-kd", "data.benchmarks=[P2R]", "learn_task.label_fraction=0.5"], tree)


@pytest.fixture(scope="module")
def finished(settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The workspace of a finished run."""
    workspace = tmp_path_factory.mktemp("finished")
    (workspace / "params.yaml").write_text(dump_settings(settings), encoding="utf-8")
    for run in Recipe.of(settings).plan:
        run_stage(Recipe.of(settings), run, workspace)
    return workspace


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    return load_catalog()


@pytest.fixture(scope="module")
def model(finished: Path) -> SegmentorCheckpoint:
    return SegmentorCheckpoint.read(finished / "artifacts/learn-task" / SOURCE / MANIFEST)


def test_measuring_gives_what_the_recipe_gave(settings: Settings, finished: Path, catalog: Catalog) -> None:
    folder = segmentor_folder(f"artifacts/learn-task/{SOURCE}", settings, finished)
    run = measure_run(folder, Path("measured"))
    measure_on(Context(Recipe(settings, catalog), run, finished), [])
    given = ScoreTable.read(finished / "artifacts/evaluate" / SOURCE / "scores.json").scores
    found = ScoreTable.read(finished / "measured/scores.json").scores
    # The model's record does not name a teacher: it had none.
    assert [score.model_copy(update={"teacher": given[0].teacher}) for score in found] == list(given)
    assert {score.label_fraction for score in found} == {0.5} and {score.teacher for score in found} == {"none"}
    assert (finished / "measured/matrix.png").is_file()
    lines = (run_folder(settings, run, finished) / "metrics.jsonl").read_text().splitlines()
    assert {"step", "time", "domains"} <= json.loads(lines[0]).keys()


def test_the_command_measures_one_domain(finished: Path) -> None:
    command = [sys.executable, "-c", "from gkd_core.cli import main; main()", "measure", f"artifacts/learn-task/{SOURCE}"]
    options = ["--domain", "potsdam-irrg/val", "--output", "one"]
    done = subprocess.run([*command, *options], cwd=finished, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    (score,) = ScoreTable.read(finished / "one/scores.json").scores
    assert (score.benchmark, score.domain, score.in_domain) == ("P2R", "potsdam-irrg", False)


def test_a_folder_that_is_none_is_named(settings: Settings, finished: Path) -> None:
    with pytest.raises(GkdError, match="nowhere"):
        segmentor_folder("artifacts/nowhere", settings, finished)


def test_domains_are_called_as_the_models_benchmarks_have_them(catalog: Catalog, model: SegmentorCheckpoint) -> None:
    own = places(catalog, ["G2C", "P2R"], model, [])
    assert own[0] == Place("P2R", "in-domain", catalog.benchmark("P2R").validation, in_domain=True)
    assert [place.domain for place in own[1:]] == list(catalog.benchmark("P2R").targets)
    assert not any(place.in_domain for place in own[1:])
    target = catalog.benchmark("P2R").targets["vaihingen-irrg"]
    assert places(catalog, ["P2R"], model, [target, target]) == [Place("P2R", "vaihingen-irrg", target, in_domain=False)]
    assert places(catalog, ["G2C"], model, [target]) == [Place("extra", target, target, in_domain=False)]


def test_another_source_s_validation_split_is_not_in_domain(catalog: Catalog, model: SegmentorCheckpoint) -> None:
    other = model.model_copy(
        update={"source": "cityscapes", "taxonomy": "cityscapes-19", "classes": catalog.taxonomies["cityscapes-19"].classes}
    )
    found = places(catalog, ["C2A"], other, ["G2B"])
    assert [(place.benchmark, place.domain, place.in_domain) for place in found] == [
        ("G2B", "validation", False),
        ("G2B", "bdd100k", False),
    ]


def test_what_cannot_be_scored_is_refused_by_name_all_at_once(catalog: Catalog, model: SegmentorCheckpoint) -> None:
    with pytest.raises(DataError) as caught:
        places(catalog, ["P2R"], model, ["cityscapes/val", "proxy/all", "nonsense/x", "G2X"])
    lines = str(caught.value).splitlines()
    for line, words in zip(lines, ["cityscapes/val: its classes", "'proxy' is unlabelled", "'nonsense'", "'G2X'"], strict=True):
        assert words in line


def test_a_model_of_no_benchmark_needs_domains(catalog: Catalog, model: SegmentorCheckpoint) -> None:
    with pytest.raises(DataError, match="name the domains"):
        places(catalog, ["G2C"], model, [])


def test_lengths_are_those_that_the_stages_count(tiny_settings: Settings, catalog: Catalog, finished: Path) -> None:
    tree = tiny_settings.model_dump(mode="json")
    settings = load_settings(None, None, ["data.benchmarks=[P2R]", "distill_proxy.updates=null", "distill_proxy.epochs=4"], tree)

    def length(stage: str, source: str | None) -> Length | None:
        return length_of(Recipe(settings, catalog), Recipe.of(settings).find(stage, source), finished)

    manifest = json.loads((finished / "artifacts/data/manifest.json").read_text())
    images = {f"{version['dataset']}/{version['split']}": version["images"] for version in manifest["versions"]}
    assert length("distill-proxy", None) == Length(
        4 * images[settings.data.proxy] // settings.distill_proxy.batch_size, "updates"
    )
    assert length("distill-source", SOURCE) == Length(2, "updates")
    assert length("learn-task", SOURCE) == Length(2, "updates")
    benchmark = catalog.benchmark("P2R")
    measured = [benchmark.validation, *benchmark.targets.values()]
    assert length("evaluate", SOURCE) == Length(sum(images[reference] for reference in measured), "images")
    assert length("report", None) is None
