"""A stage asks the manifest of what it reads: weights of other classes, or of another student, are refused by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gkd_core.errors import DataError, WeightsError
from gkd_core.evaluate.places import check_classes
from gkd_core.records import MANIFEST, EncoderCheckpoint, ScoreTable, SegmentorCheckpoint
from gkd_core.settings import settings_from_tree
from gkd_core.stages import Recipe, run_stage

SOURCE = "potsdam-rgb"


@pytest.fixture(scope="module")
def tree(tiny_tree: dict[str, Any]) -> dict[str, Any]:
    """One source with two targets, one image each."""
    return tiny_tree | {"data": tiny_tree["data"] | {"benchmarks": ["P2R"]}, "illustrate": {"images": 1, "pixels": 64}}


@pytest.fixture(scope="module")
def finished(tree: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The workspace of a finished run, all but its report."""
    workspace = tmp_path_factory.mktemp("gkd")
    run(tree, workspace, "prepare-data", None)
    run(tree, workspace, "distill-proxy", None)
    for stage in ("distill-source", "learn-task"):
        run(tree, workspace, stage)
    return workspace


@pytest.fixture
def workspace(finished: Path, tmp_path: Path) -> Path:
    """A workspace that reads what the finished one wrote."""
    (tmp_path / "artifacts").mkdir()
    for output in (finished / "artifacts").iterdir():
        if output.name != "runs":
            (tmp_path / "artifacts" / output.name).symlink_to(output)
    return tmp_path


def run(tree: dict[str, Any], workspace: Path, stage: str, source: str | None = SOURCE) -> None:
    recipe = Recipe.of(settings_from_tree(tree))
    run_stage(recipe, recipe.find(stage, source), workspace)


def with_manifest(workspace: Path, **changes: object) -> None:
    """Give the segmentor a manifest that says something else."""
    folder = workspace / "artifacts/learn-task" / SOURCE
    old = SegmentorCheckpoint.read(folder / MANIFEST)
    new = workspace / "changed" / SOURCE
    new.mkdir(parents=True)
    (new / old.weights).symlink_to((folder / old.weights).resolve())
    old.model_copy(update=changes).write(new / MANIFEST)
    (workspace / "artifacts/learn-task").unlink()
    (workspace / "artifacts/learn-task").symlink_to(workspace / "changed")


def classes_of(workspace: Path) -> tuple[str, ...]:
    return SegmentorCheckpoint.read(workspace / "artifacts/learn-task" / SOURCE / MANIFEST).classes


@pytest.mark.parametrize("stage", ["evaluate", "illustrate"])
@pytest.mark.parametrize("change", ["order", "more", "fewer", "name", "taxonomy"])
def test_a_segmentor_of_other_classes_is_refused(workspace: Path, tree: dict[str, Any], stage: str, change: str) -> None:
    first, second, *rest = classes_of(workspace)
    classes = {
        "order": (second, first, *rest),
        "more": (first, second, *rest, "boat"),
        "fewer": (first, second, *rest[:-1]),
        "name": (first, "other", *rest),
        "taxonomy": (first, second, *rest),
    }[change]
    with_manifest(workspace, classes=classes, **({"taxonomy": "another"} if change == "taxonomy" else {}))
    with pytest.raises(DataError, match=r"potsdam-rgb/val: its classes are .* so it cannot be scored; choose .* run learn-task"):
        run(tree, workspace, stage)
    assert not (workspace / "artifacts" / stage / SOURCE).exists()


def test_the_first_class_that_differs_is_named(workspace: Path, tree: dict[str, Any]) -> None:
    first, second, *rest = classes_of(workspace)
    model = SegmentorCheckpoint.read(workspace / "artifacts/learn-task" / SOURCE / MANIFEST)
    domain = Recipe.of(settings_from_tree(tree)).catalog.domain("potsdam-rgb/val")
    check_classes(model, domain)
    with pytest.raises(DataError, match=f"class 0 is '{first}' here and '{second}' there"):
        check_classes(model.model_copy(update={"classes": (second, first, *rest)}), domain)


def test_a_score_names_the_teacher_that_was_learnt_from(workspace: Path, tree: dict[str, Any]) -> None:
    with_manifest(workspace, teacher="its-own-teacher")
    run(tree, workspace, "evaluate")
    scores = ScoreTable.read(workspace / "artifacts/evaluate" / SOURCE / "scores.json").scores
    assert {score.teacher for score in scores} == {"its-own-teacher"}


@pytest.mark.parametrize(
    ("stage", "change", "key"),
    [
        ("learn-task", {"student": {"arch": "vit_small_patch16_224"}}, r"student\.arch='vit_tiny"),
        ("learn-task", {"student": {"options": {"embed_dim": 16, "depth": 2, "num_heads": 2}}}, r"student\.options="),
        ("learn-task", {"student": {"patch_size": 16}}, r"student\.patch_size=8"),
        ("learn-task", {"method": "two-stage-mse"}, "method='gkd'"),
        ("learn-task", {"seed": 1}, "seed=0"),
        ("distill-source", {"student": {"image_size": 64}}, r"student\.image_size=32"),
        ("distill-source", {"seed": 1}, "seed=0"),
        ("illustrate", {"student": {"patch_size": 16}}, r"student\.patch_size=8"),
    ],
)
def test_a_student_of_other_settings_is_refused(
    workspace: Path, tree: dict[str, Any], stage: str, change: dict[str, Any], key: str
) -> None:
    changed = {name: tree[name] | value if isinstance(value, dict) else value for name, value in change.items()}
    with pytest.raises(WeightsError, match=rf"manifest\.json: this student was distilled with {key}.*run stage one again"):
        run(tree | changed, workspace, stage)


def test_an_imported_student_goes_by_its_architecture(workspace: Path, tree: dict[str, Any], tmp_path: Path) -> None:
    from gkd_core.stages.student_record import check_student

    manifest = workspace / "artifacts/distill-source" / SOURCE / MANIFEST
    imported = EncoderCheckpoint.read(manifest).model_copy(update={"stage": "import-checkpoint", "seed": 7})
    settings = settings_from_tree(tree)
    check_student(imported, settings, settings.distill_source, manifest)
    other = settings_from_tree(tree | {"student": tree["student"] | {"arch": "resnet18"}})
    with pytest.raises(WeightsError, match=r"student\.arch"):
        check_student(imported, other, other.distill_source, manifest)
