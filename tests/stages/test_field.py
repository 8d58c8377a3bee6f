"""Images of the field that join the proxy: part of what stage 1a is known by, seen by it, and told by all that comes after."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from gkd_core.data.catalog.sources import Mix
from gkd_core.errors import DataError, SettingsError
from gkd_core.predict.card import render_card
from gkd_core.records import MANIFEST, EncoderCheckpoint, FieldImages, ScoreTable, SegmentorCheckpoint, described_field
from gkd_core.settings import Settings, settings_from_tree
from gkd_core.stages import Recipe, run_stage
from gkd_core.stages.bundle import describe
from gkd_core.stages.fingerprint import fingerprint_of
from gkd_core.stages.length import length_of
from gkd_core.versioning.workspace import anchor_paths
from tests.predict.conftest import noise


def field(folder: Path, count: int = 3) -> Path:
    (folder / "day").mkdir(parents=True)
    for seed in range(count):
        Image.fromarray(noise(40, 48, seed)).save(folder / "day" / f"{seed}.png")
    (folder / "notes.txt").write_text("no image")
    return folder


def with_field(settings: Settings, folder: str | None) -> Settings:
    return settings.model_copy(update={"data": settings.data.model_copy(update={"field": folder, "benchmarks": ("P2R",)})})


def test_a_student_s_records_report_and_cards_say_that_field_images_joined(tiny_settings: Settings, tmp_path: Path) -> None:
    folder = field(tmp_path / "field")
    settings = with_field(tiny_settings, "field")
    settings = settings.model_copy(
        update={"distill_proxy": settings.distill_proxy.model_copy(update={"updates": None, "epochs": 2, "batch_size": 3})}
    )
    recipe = Recipe.of(settings)
    for run in recipe.plan:
        run_stage(recipe, run, tmp_path)
    expected = described_field(sorted(folder.rglob("*.png")), folder)
    assert expected.images == 3
    proxy = EncoderCheckpoint.read(tmp_path / "artifacts/distill-proxy" / MANIFEST)
    assert proxy.updates == 2 * (6 + 3) // 3, "two epochs of nine images, three at once"
    found = length_of(recipe, recipe.find("distill-proxy"), tmp_path)
    assert found is not None and found.total == proxy.updates
    student = SegmentorCheckpoint.read(tmp_path / "artifacts/learn-task/potsdam-rgb" / MANIFEST)
    scores = ScoreTable.read(tmp_path / "artifacts/report/matrix.json").scores
    assert {proxy.field, student.field, *(score.field for score in scores)} == {expected}
    line = "3 images from the field"
    told = [(tmp_path / "artifacts/report" / name).read_text() for name in ("summary.md", "report.html")]

    place = tmp_path / "artifacts/learn-task/potsdam-rgb"
    told.append(render_card(describe(place, recipe, tmp_path)))
    for text in told:
        assert line in text and "no unseen domain" in text


def test_the_plan_depends_on_the_field_where_there_is_one_and_is_as_ever_where_there_is_none(tiny_settings: Settings) -> None:
    without, joined = Recipe.of(with_field(tiny_settings, None)), Recipe.of(with_field(tiny_settings, "field"))
    stage = without.find("distill-proxy")
    assert "data.field" not in stage.params and Path("field") not in stage.inputs
    assert "data.field" in joined.find("distill-proxy").params and Path("field") in joined.find("distill-proxy").inputs
    for run in joined.plan:
        assert (Path("field") in run.inputs) == (run.stage == "distill-proxy")


def test_relative_folders_stay_relative_below_the_project(tiny_settings: Settings, tmp_path: Path) -> None:
    assert anchor_paths(with_field(tiny_settings, "inbox/day"), tmp_path).data.field == "inbox/day"
    assert anchor_paths(with_field(tiny_settings, "/mnt/field"), tmp_path).data.field == "/mnt/field"


def test_content_and_names_decide_the_digest(tmp_path: Path) -> None:
    folder = field(tmp_path / "field")
    images = sorted(folder.rglob("*.png"))
    before = described_field(images, folder)
    images[0].rename(images[0].with_name("x.png"))
    assert described_field([images[0].with_name("x.png"), *images[1:]], folder) != before


def test_the_mix_sees_each_field_image_once_an_epoch() -> None:
    assert Mix((60, 40), (75, 25)).joined_by(5) == Mix((60, 40, 5), (75, 25, 5))


def test_a_folder_that_is_not_there_or_empty_is_one_line(tiny_settings: Settings, tmp_path: Path) -> None:
    recipe = Recipe.of(with_field(tiny_settings, "field"))
    run_stage(recipe, recipe.find("prepare-data"), tmp_path)
    with pytest.raises(DataError, match="no such folder of field images"):
        length_of(recipe, recipe.find("distill-proxy"), tmp_path)
    (tmp_path / "field").mkdir()
    with pytest.raises(DataError, match="no field image in it"):
        run_stage(recipe, recipe.find("distill-proxy"), tmp_path)


def test_streaming_and_a_field_are_refused_together(tiny_tree: dict[str, object]) -> None:
    data = {"world": None, "shards": "shards", "streaming": {"lanes": 2}, "field": "field"}
    with pytest.raises(SettingsError, match="field: its images lie in no shard"):
        settings_from_tree({**tiny_tree, "data": data})


def test_a_field_is_part_of_the_fingerprint(tiny_settings: Settings) -> None:
    one = fingerprint_of(Recipe.of(with_field(tiny_settings, "field")), {"field": "aa"})
    other = fingerprint_of(Recipe.of(with_field(tiny_settings, "field")), {"field": "bb"})
    assert one.digest != other.digest
    assert FieldImages(images=1, sha256="0" * 64)
