"""One table of stages: the plan keeps to it, nobody else writes a stage's name, and a further stage needs little."""

from __future__ import annotations

import ast
import importlib
import sys
from pathlib import Path
from types import ModuleType

import pytest

from gkd_core.settings import Settings, load_settings
from gkd_core.stages import Recipe, StageRun, run_stage
from gkd_core.stages.facts import EVALUATE, STAGES, Stage, names_where
from gkd_core.stages.length import length_of
from gkd_core.stages.waves import ray_stages, waves
from gkd_core.stages.work import Context

ROOT = Path(__file__).parents[2]
TABLE = ROOT / "gkd_core" / "stages" / "facts.py"
# Ordinary words too: sections of the settings, commands and folders are called so. Where a stage is meant, it is compared.
WORDS = {"bundle", "evaluate", "illustrate", "report"}


@pytest.fixture(scope="module", params=["gkd", "no-kd", "teacher"])
def settings(request: pytest.FixtureRequest) -> Settings:
    return load_settings(None, "demo", [f"method={request.param}"])


def test_the_plan_keeps_to_the_table(settings: Settings) -> None:
    runs = Recipe.of(settings).plan
    for run in runs:
        stage = STAGES[run.stage]
        assert (run.source is not None) == stage.per_source
        assert run.output == stage.output(run.source)
        assert {name for name, _ in run.named} <= set(stage.inputs)
        assert all(folder in run.inputs for _, folder in run.named)
        if stage.section is not None and stage.trains:
            assert stage.section in run.params
    assert list(dict.fromkeys(run.stage for run in runs)) == [name for name in STAGES if name in {run.stage for run in runs}]


def test_inputs_are_found_by_name_and_lead_to_what_an_earlier_stage_wrote(settings: Settings) -> None:
    written: set[Path] = set()
    for run in Recipe.of(settings).plan:
        for name, folder in run.named:
            assert run.has_input(name) and run.input(name) == folder
            assert folder in written, f"{run.name}: {name}"
        written.add(run.output)
    with pytest.raises(KeyError):
        run.input("nothing")


@pytest.mark.parametrize("stage", STAGES.values(), ids=STAGES)
def test_every_stage_has_a_function(stage: Stage) -> None:
    module, function = stage.work
    assert callable(getattr(importlib.import_module(f"gkd_core.stages.{module}"), function))
    assert stage.section is None or stage.section in Settings.model_fields


def _stage_names(text: str) -> list[str]:
    """Strings of a file that are a stage's name."""
    names = set(STAGES) - WORDS
    tree = ast.parse(text)
    found = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and node.value in names]
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare) and isinstance(node.left, ast.Attribute) and node.left.attr == "stage":
            inner = [
                constant.value for side in node.comparators for constant in ast.walk(side) if isinstance(constant, ast.Constant)
            ]
            found += [value for value in inner if value in WORDS]
    return found


def test_no_stage_is_named_but_in_the_table() -> None:
    files = [path for folder in ("gkd_core", "flows") for path in (ROOT / folder).rglob("*.py") if path != TABLE]
    named = {
        path.relative_to(ROOT).as_posix(): found for path in files if (found := _stage_names(path.read_text(encoding="utf-8")))
    }
    assert named == {}


def test_a_stage_that_is_named_would_be_seen() -> None:
    assert _stage_names('x = "learn-task"\nif run.stage in ("evaluate", "report"): pass\n') == [
        "learn-task",
        "evaluate",
        "report",
    ]
    assert _stage_names('tree["evaluate"] = {"report": 1}\n') == []


def test_no_input_is_found_by_its_place() -> None:
    for path in (ROOT / "gkd_core" / "stages").rglob("*.py"):
        assert ".inputs[" not in path.read_text(encoding="utf-8"), path


def test_a_further_stage_is_an_entry_a_function_and_a_place_in_the_plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def count(context: Context) -> None:
        context.output.mkdir(parents=True)
        (context.output / "from").write_text(str(context.run.input("segmentor")), encoding="utf-8")

    module = ModuleType("gkd_core.stages.dummy")
    monkeypatch.setattr(module, "count", count, raising=False)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    settings = load_settings(None, "demo", ["data.benchmarks=[P2R]"])
    before = Recipe.of(settings).plan, ray_stages(settings)
    with monkeypatch.context() as added:
        stage = Stage(
            "count", ("dummy", "count"), ("target",), Path("artifacts/count"), per_source=True, inputs=("segmentor",), unit=None
        )
        added.setitem(STAGES, stage.name, stage)
        found = next(run for run in before[0] if run.stage == EVALUATE.name)
        run = StageRun("count", found.source, found.inputs, ("seed",), stage.output(found.source), named=found.named)
        assert run.command == f"gkd run count --source {found.source}"
        assert set(Recipe.of(settings).domains_read(run).values()) == {"target"}
        assert length_of(Recipe.of(settings), run, tmp_path) is None
        assert "count" not in ray_stages(settings)
        assert [[each.stage for each in wave] for wave in waves([found, run], settings)] == [["evaluate"], ["count"]]
        run_stage(Recipe.of(settings), run, tmp_path)
        assert (tmp_path / run.output / "from").read_text(encoding="utf-8") == "artifacts/learn-task/potsdam-rgb"
    assert (Recipe.of(settings).plan, ray_stages(settings)) == before
    assert "count" not in names_where(lambda stage: True)
