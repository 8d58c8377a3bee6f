"""What a bundle says of a segmentor: by the catalog and the settings, and nothing of this machine."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from gkd_core.cli import app
from gkd_core.data.catalog.entries import Protocol
from gkd_core.data.catalog.load import load_catalog
from gkd_core.data.catalog.taxonomy import LabelEncoding
from gkd_core.errors import GkdError
from gkd_core.models.licences import UNKNOWN_LICENCE
from gkd_core.predict.bundle import read_bundle, write_bundle
from gkd_core.predict.manifest import Bundle, OwnIds
from gkd_core.records import MANIFEST, Score, ScoreProtocol, ScoreTable, SegmentorCheckpoint, sha256_of
from gkd_core.settings import load_settings
from gkd_core.stages.bundle import describe, inverted, weights_beside
from gkd_core.stages.recipe import Recipe
from tests.predict.conftest import CLASSES, COLORS, bundle_of, segmentor_folder
from tests.predict.test_latency import latency, model_latency


def described(folder: Path, *overrides: str, **record: object) -> Bundle:
    """The bundle of a segmentor whose record says that."""
    stated = SegmentorCheckpoint.read(folder / MANIFEST).model_copy(update=record)
    stated.write(folder / MANIFEST)
    recipe = Recipe.of(load_settings(None, None, list(overrides)))
    return describe(folder, recipe, folder)


OWN = {
    "taxonomies": {"street": {"classes": CLASSES, "colors": COLORS}},
    "encodings": {"own-ids": {"taxonomy": "street", "ids": {7: 0, 8: 1, 26: 2, 23: 3, 21: 4, 0: 255}}},
    "datasets": {
        "own": {
            "folder": "own", "images": "i/*.png", "labels": "l/*.png", "encoding": "own-ids", "splits": {"all": {}},
            "protocol": {"max_size": [100, 200]},
        }
    },
    "benchmarks": {"O2O": {"title": "Own", "source": "own/all", "validation": "own/all", "targets": {"Own": "own/all"}}},
}  # fmt: skip


def test_colours_ids_and_protocol_are_the_catalog_s(tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text(json.dumps(OWN))
    own = described(segmentor_folder(tmp_path / "s"), f"data.catalogs=[{tmp_path}/own.yaml]", source="own")
    assert own.colors == COLORS
    assert own.view.protocol == Protocol(max_size=(100, 200))
    assert own.ids == OwnIds(dataset="own", form="index", values=(7, 8, 26, 23, 21))


def test_what_the_catalog_does_not_know_has_colours_that_differ_and_no_ids(tmp_path: Path) -> None:
    unknown = described(segmentor_folder(tmp_path / "s"), taxonomy="unheard-of", source="gta5")
    assert unknown.view.protocol == Protocol(max_size=(720, 1280)), "that of its source"
    assert unknown.ids is None, "its classes are not the source's"
    assert len(set(unknown.colors)) == len(CLASSES)


def test_ids_are_inverted_to_the_lowest_of_each_class() -> None:
    encoding = LabelEncoding(taxonomy="t", ids={7: 0, 6: 0, 8: 1, -1: 2, 70_000: 3, 255: 255})
    assert inverted("d", encoding, 4).values == (6, 8, None, None)
    colors = LabelEncoding(taxonomy="t", ids={0xFF0000: 0, 0x0000FF: 1}, form="color")
    assert (inverted("d", colors, 2).form, inverted("d", colors, 2).values) == ("color", (0xFF0000, 0x0000FF))


@pytest.mark.parametrize("reference", ["gta5/train", "synthia/all", "potsdam-rgb/train"])
def test_ids_given_back_are_read_as_the_train_ids_that_they_were(reference: str) -> None:
    domain = load_catalog().domain(reference)
    encoding = domain.encoding
    assert isinstance(encoding, LabelEncoding)
    own = inverted(domain.entry.name, encoding, len(domain.taxonomy.classes))
    known = [(index, value) for index, value in enumerate(own.values) if value is not None]
    assert [encoding.ids[value] for _, value in known] == [index for index, _ in known]
    assert len(known) >= 5


def test_how_it_sees_is_the_settings(tmp_path: Path) -> None:
    changes = ["evaluate.scales=[0.75,1.0]", "evaluate.flip=true", "evaluate.window=[64,32]", "evaluate.stride=[32,16]"]
    view = described(segmentor_folder(tmp_path / "s"), *changes, "compute.threads=3").view
    assert (view.scales, view.flip, view.window, view.stride, view.threads) == ((0.75, 1.0), True, (64, 32), (32, 16), 3)


def test_no_folder_of_this_machine_is_told(tmp_path: Path) -> None:
    folder = segmentor_folder(tmp_path / "s")
    encoder = SegmentorCheckpoint.read(folder / MANIFEST).encoder.model_copy(update={"weights": "/home/me/secret/deit.pth"})
    assert described(folder, encoder=encoder).model.encoder.weights == "deit.pth"
    assert "secret" not in described(folder, encoder=encoder).model_dump_json()


def test_licences_are_stated_or_said_to_be_unknown(tmp_path: Path) -> None:
    folder = segmentor_folder(tmp_path / "s")
    assert described(folder).licences.teacher is None
    stated = described(
        folder, "registry.student_licence=MIT", "registry.teacher_licence=CC0", "teacher.arch=resnet10t", teacher="resnet10t"
    )
    assert (stated.licences.student, stated.licences.teacher) == ("MIT", "CC0")
    assert described(folder, teacher="another").licences.teacher == UNKNOWN_LICENCE


def score(**changes: object) -> Score:
    protocol = ScoreProtocol(
        scale=1, max_size=None, labels_resized=False, window=(32, 32), stride=(32, 32), classes=5, selection="last checkpoint"
    )
    facts: dict[str, object] = {
        "method": "gkd", "teacher": "none", "student": "vit_tiny_patch16_224", "seed": 0, "benchmark": "G2C", "source": "gta5",
        "domain": "cityscapes", "dataset": "cityscapes/val", "in_domain": False, "miou": 41.239, "class_iou": {}, "images": 500,
        "protocol": protocol,
    }  # fmt: skip
    return Score.model_validate(facts | changes)


def test_the_command_writes_a_bundle_that_opens_and_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = segmentor_folder(tmp_path / "s")
    ScoreTable(scores=(score(),)).write(tmp_path / "evaluate/scores.json")
    command = ["bundle", "s", "-o", "student.gkd", "--profile", "demo", "--scores", "evaluate"]
    for _ in range(2):
        result = CliRunner().invoke(app, command)
        assert result.exit_code == 0, result.exception
    assert "wrote student.gkd: vit_tiny_patch16_224 from gta5, 5 classes" in result.output
    shutil.rmtree(folder)
    bundle = read_bundle(tmp_path / "student.gkd")
    assert bundle.scores == (score(),)
    assert "| G2C | cityscapes | 41.24 | 500 |" in (tmp_path / "student.gkd/MODEL_CARD.md").read_text()
    assert json.loads((tmp_path / "student.gkd" / MANIFEST).read_text())["kind"] == "bundle"


def test_scores_of_another_student_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    segmentor_folder(tmp_path / "s")
    ScoreTable(scores=(score(seed=3),)).write(tmp_path / "scores.json")
    command = ["bundle", "s", "-o", "student.gkd", "--profile", "demo", "--scores", "scores.json"]
    refused = CliRunner().invoke(app, command).exception
    assert isinstance(refused, GkdError)
    assert "by gkd, seed 3; this student is" in str(refused)
    assert not (tmp_path / "student.gkd").exists()


def bundle_with(folder: Path, *scores: Score) -> str:
    """A bundle in a folder that tells these scores; the SHA-256 of its weights."""
    segmentor = segmentor_folder(folder.with_name(f"{folder.name}-segmentor"))
    write_bundle(bundle_of(segmentor, scores=scores), segmentor / "segmentor.safetensors", folder)
    return sha256_of(segmentor / "segmentor.safetensors")


def test_a_report_knows_its_students_by_the_bundles_beside_it(tmp_path: Path) -> None:
    sha256 = bundle_with(tmp_path / "bundle/gta5", score())
    report = tmp_path / "report"
    assert weights_beside(report, [score(seed=1), score()]) == {sha256}
    assert weights_beside(report, [score(miou=41.3)]) == frozenset(), "of another run, which left its bundle there"
    bundle_with(tmp_path / "other/bundle/gta5")
    assert weights_beside(tmp_path / "other/report", [score()]) == frozenset(), "it tells no scores"
    assert weights_beside(tmp_path / "nothing/report", [score()]) == frozenset()


def test_a_comparison_of_reports_takes_the_latency_of_a_bundle_beside_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    sha256 = bundle_with(tmp_path / "artifacts/bundle/gta5", score())
    ScoreTable(scores=(score(), score(method="no-kd"))).write(tmp_path / "artifacts/report/matrix.json")
    latency(model=model_latency(sha256=sha256)).write(tmp_path / "gkd.json")
    command = ["compare", "--report", "artifacts/report", "--latency", "gkd.json", "--html", "page.html"]
    result = CliRunner().invoke(app, command, catch_exceptions=False)
    assert result.exit_code == 0
    said = " ".join(result.output.split())
    assert "Latency: median of a pass; 512 × 512 pixels" in said and "not in the figure: no-kd." in said
    assert "What a student scores, and what it takes" in (tmp_path / "page.html").read_text(encoding="utf-8")
    latency(model=model_latency(sha256="0" * 64)).write(tmp_path / "gkd.json")
    with pytest.raises(GkdError, match="is the student of no run here"):
        CliRunner().invoke(app, command, catch_exceptions=False)
