"""The recipe: which stages a run has, what each depends on, and where its unfinished work lies."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gkd_core.data.catalog.load import load_catalog
from gkd_core.errors import DataError, SettingsError
from gkd_core.methods import METHODS, method_of, task_updates
from gkd_core.paths import RUNS
from gkd_core.settings import Settings, load_settings, settings_from_tree
from gkd_core.stages import Recipe, StageRun, run_folder
from gkd_core.stages.recipe import picture_kinds
from gkd_core.versioning.recipe import render

SOURCES = ("gta5", "cityscapes", "potsdam-rgb")


def demo(*overrides: str) -> Settings:
    return load_settings(None, "demo", overrides)


def names(settings: Settings) -> list[str]:
    return [run.name for run in Recipe.of(settings).plan]


@pytest.mark.parametrize("method", METHODS)
def test_every_method_has_the_stages_that_it_needs(method: str) -> None:
    stage_one = ["distill-proxy", *(f"distill-source-{source}" for source in SOURCES)]
    expected = ["prepare-data", *(stage_one if method in ("gkd", "two-stage-mse") else [])]
    for stage in ("learn-task", "evaluate", "bundle", "illustrate"):
        expected += [f"{stage}-{source}" for source in SOURCES]
    assert names(demo(f"method={method}")) == [*expected, "report"]


@pytest.mark.parametrize(
    ("method", "kinds"),
    [
        ("gkd", ("panel", "features", "attention")),
        ("two-stage-mse", ("panel", "features")),
        ("single-stage-mse", ("panel",)),
        ("no-kd", ("panel",)),
        ("teacher", ("panel",)),
    ],
)
def test_a_method_is_drawn_by_what_it_has(method: str, kinds: tuple[str, ...]) -> None:
    settings = demo(f"method={method}")
    assert picture_kinds(settings) == kinds
    drawn, measured = (Recipe.of(settings).find(stage, "gta5") for stage in ("illustrate", "evaluate"))
    stage_one = {Path("artifacts/distill-source/gta5")} if len(kinds) > 1 else set()
    assert set(drawn.inputs) == set(measured.inputs) | stage_one
    assert ("teacher" in drawn.params) == ("distill_source.num_heads" in drawn.params) == (len(kinds) > 1)


def test_pictures_are_left_out_where_none_is_asked_for_or_possible() -> None:
    without = [name for name in names(demo()) if not name.startswith("illustrate")]
    assert names(demo("illustrate.images=0")) == without
    assert not picture_kinds(demo("method=no-kd", "illustrate.kinds=[features, attention]"))
    panels = Recipe.of(demo("illustrate.kinds=[panel]")).find("illustrate", "gta5")
    assert not any("distill" in str(path) for path in panels.inputs), "without features, stage one's student is not read"


def test_no_other_stage_depends_on_pictures() -> None:
    runs = Recipe.of(demo()).plan
    assert {run.stage for run in runs if "illustrate" in run.params} == {"illustrate"}
    assert not any("illustrate" in str(path) for run in runs for path in run.inputs)


def test_a_bundle_reads_student_scores_and_what_its_card_says_and_no_image(tmp_path: Path) -> None:
    bundle = Recipe.of(demo()).find("bundle", "gta5")
    assert bundle.inputs == (Path("artifacts/learn-task/gta5"), Path("artifacts/evaluate/gta5"))
    assert {"registry.student_licence", "registry.teacher_licence", "evaluate", "teacher"} < set(bundle.params)
    assert not {"seed", "method", "learn_task", "compute.device"} & set(bundle.params), "the student's record has them"
    own = {"M2C": {"title": "Own", "source": "mapillary/val", "validation": "mapillary/val", "targets": {"C": "cityscapes/val"}}}
    (tmp_path / "own.yaml").write_text(json.dumps({"benchmarks": own}))
    settings = demo(f"data.catalogs=[{tmp_path}/own.yaml]", "data.benchmarks=[M2C]")
    inputs = Recipe.of(settings).find("bundle", "mapillary").inputs
    assert inputs[2:] == (tmp_path / "own.yaml", Path("artifacts/data/mapillary/config.json")), "where its ids have their names"


def test_no_other_stage_depends_on_bundles_or_licences() -> None:
    for run in Recipe.of(demo()).plan:
        if run.stage != "bundle":
            assert not any("bundle" in str(path) for path in run.inputs)
            assert not any(key.startswith("registry") for key in run.params)


def test_every_input_is_made_before_it_is_read() -> None:
    settings = demo()
    made: list[Path] = []
    for run in Recipe.of(settings).plan:
        for path in run.inputs:
            assert any(path == output or output in path.parents for output in made), f"{run.name} reads {path}"
        made.append(run.output)
    assert len(set(made)) == len(made)


def test_every_parameter_key_exists() -> None:
    for method in METHODS:
        settings = demo(f"method={method}")
        tree = settings.model_dump(mode="json")
        for run in Recipe.of(settings).plan:
            for key in run.params:
                node: Any = tree
                for part in key.split("."):
                    assert part in node, f"{run.name} depends on {key}"
                    node = node[part]


def test_stage_one_depends_on_no_label() -> None:
    settings, catalog = demo(), load_catalog()
    labels = {
        path
        for domain in Recipe(settings, catalog).domains
        if domain.is_labelled
        for path in domain.entry.label_inputs(Path("artifacts/data"), domain.split)
    }
    runs = Recipe.of(settings).plan
    used = {
        name: {path for run in runs if run.stage == name for path in run.inputs}
        for name in ("distill-proxy", "distill-source", "learn-task")
    }
    assert used["learn-task"] & labels
    assert not (used["distill-proxy"] | used["distill-source"]) & labels
    assert not any(path in label.parents for path in used["distill-source"] for label in labels)


def test_learning_reads_no_target() -> None:
    """Targets are evaluated, never trained on: what learn-task reads is its source's training split."""
    for run in Recipe.of(demo()).plan:
        if run.stage in ("learn-task", "distill-source", "distill-proxy"):
            for path in run.inputs:
                assert not any(word in str(path) for word in ("bdd", "mapillary", "acdc", "IRRG", "Vaihingen", "/val"))


def test_fewer_benchmarks_ask_for_fewer_sources() -> None:
    assert names(demo("data.benchmarks=[C2A]")) == [
        "prepare-data", "distill-proxy", "distill-source-cityscapes", "learn-task-cityscapes", "evaluate-cityscapes",
        "bundle-cityscapes", "illustrate-cityscapes", "report"
    ]  # fmt: skip


@pytest.mark.parametrize("profile", ["f2f-dinov2-l-b", "f2f-dinov2-b-s", "f2f-eva02-l-b", "f2f-eva02-b-s"])
def test_foundation_students_go_straight_to_the_source(profile: str) -> None:
    """The paper's F2F: no stage 1a, 1b from the student's own weights, and no need of the proxy's images."""
    settings, catalog = load_settings(None, profile), load_catalog()
    runs = Recipe.of(settings).plan
    assert [run.stage for run in runs].count("distill-proxy") == 0
    assert [run.name for run in runs if run.stage == "distill-source"] == [f"distill-source-{source}" for source in SOURCES]
    assert not any("distill-proxy" in str(path) or "imagenet" in str(path) for run in runs for path in run.inputs)
    assert settings.data.proxy not in [domain.reference for domain in Recipe(settings, catalog).domains]
    assert "distill-proxy" not in render(settings)


def test_without_updates_stage_1a_is_left_out_whatever_the_method() -> None:
    for method in METHODS:
        assert names(demo(f"method={method}", "distill_proxy.updates=0")) == [
            name for name in names(demo(f"method={method}")) if name != "distill-proxy"
        ]
    assert [domain.reference for domain in Recipe.of(demo("distill_proxy.updates=0")).domains] == [
        domain.reference for domain in Recipe.of(demo("distill_proxy.updates=0", "method=no-kd")).domains
    ]


def test_unknown_stages_and_benchmarks_are_named() -> None:
    with pytest.raises(
        SettingsError, match="distill-proxy: no such stage for method no-kd; there is: prepare-data, learn-task --source gta5"
    ):
        Recipe.of(demo("method=no-kd")).find("distill-proxy")
    with pytest.raises(DataError, match="benchmark 'G2X' is unknown"):
        names(demo("data.benchmarks=[G2X]"))


def test_budgets_match_in_images() -> None:
    """1a: 30 updates of 8, 1b: 10 of 4, stage two: 5 of 6 images: 310 in all, which are 51.7 updates of 6."""
    sizes = [
        *("distill_proxy.updates=30", "distill_proxy.batch_size=8"),
        *("distill_source.updates=10", "distill_source.batch_size=4"),
        *("learn_task.updates=5", "learn_task.batch_size=6", "learn_task.end_to_end_updates=null"),
    ]
    for method in ("gkd", "two-stage-mse", "teacher"):
        assert task_updates(demo(f"method={method}", *sizes)) == 5
    for method in ("no-kd", "single-stage-mse"):
        assert task_updates(demo(f"method={method}", *sizes)) == 52
        assert task_updates(demo(f"method={method}", "learn_task.end_to_end_updates=7")) == 7
        assert not method_of(demo(f"method={method}")).freeze_encoder
    epochs = ("distill_source.updates=null", "distill_source.epochs=300")
    with pytest.raises(SettingsError, match="learn_task.end_to_end_updates: distill_source counts epochs"):
        task_updates(demo("method=no-kd", *sizes, *epochs))
    assert task_updates(demo("method=no-kd", *sizes, *epochs, "learn_task.end_to_end_updates=7")) == 7


@pytest.fixture
def run(tmp_path: Path) -> StageRun:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.png").write_bytes(b"1234")
    (tmp_path / "images" / "manifest.json").write_text("{}")
    (tmp_path / "weights.safetensors").write_bytes(b"1234")
    return StageRun("stage", None, (Path("images"), Path("weights.safetensors")), ("seed", "distill_proxy.lr"), Path("out"))


def test_the_run_folder_is_named_by_all_that_the_result_depends_on(tmp_path: Path, run: StageRun) -> None:
    settings = demo()
    original = run_folder(settings, run, tmp_path)
    assert original == run_folder(demo("learn_task.lr=0.5"), run, tmp_path), "a setting that the stage does not read"
    assert original.parent == tmp_path / RUNS
    assert original.name.startswith("stage-")

    seen = {original, run_folder(demo("seed=1"), run, tmp_path), run_folder(demo("distill_proxy.lr=0.5"), run, tmp_path)}
    seen.add(run_folder(settings, replace(run, params=("seed",)), tmp_path))
    (tmp_path / "images" / "b.png").write_bytes(b"1")
    seen.add(run_folder(settings, run, tmp_path))
    (tmp_path / "images" / "b.png").write_bytes(b"12")
    seen.add(run_folder(settings, run, tmp_path))
    (tmp_path / "images" / "manifest.json").write_text("[]")  # same size, other content
    seen.add(run_folder(settings, run, tmp_path))
    (tmp_path / "weights.safetensors").write_bytes(b"4321")  # same size, other content
    seen.add(run_folder(settings, run, tmp_path))
    assert len(seen) == 8


def test_the_run_folder_is_the_same_in_another_workspace(tmp_path: Path, run: StageRun) -> None:
    other = tmp_path.with_name(tmp_path.name + "-other")
    tmp_path.rename(other)
    moved = run_folder(demo(), run, other)
    other.rename(tmp_path)
    assert moved.name == run_folder(demo(), run, tmp_path).name


def test_weights_named_by_path_are_inputs(tiny_tree: dict[str, Any]) -> None:
    tree = tiny_tree | {"student": tiny_tree["student"] | {"weights": "own/student.pth"}}
    runs = {run.name: run for run in Recipe.of(settings_from_tree(tree)).plan}
    assert Path("own/student.pth") in runs["distill-proxy"].inputs
    assert Path("own/student.pth") in runs["learn-task-gta5"].inputs


def test_no_input_lies_in_the_package() -> None:
    """Where it is installed differs, and a result must be known by the same names in every environment."""
    settings = load_settings(None, "camvid", ["data.root=data"])
    inputs = {path for run in Recipe.of(settings).plan for path in run.inputs}
    assert Path("data/camvid/images/0016E5") in inputs
    assert not any(path.is_absolute() for path in inputs)
