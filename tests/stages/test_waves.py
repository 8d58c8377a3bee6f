"""How the flow groups the plan."""

from __future__ import annotations

from gkd_core.settings import load_settings
from gkd_core.stages import Recipe
from gkd_core.stages.waves import own_ray_stages, ray_stages, waves


def _waves(*overrides: str) -> list[list[str]]:
    settings = load_settings(None, "demo", overrides)
    return [[run.name for run in wave] for wave in waves(Recipe.of(settings).plan, settings)]


def test_every_stage_runs_once_and_in_order() -> None:
    settings = load_settings(None, "demo")
    assert [run for wave in waves(Recipe.of(settings).plan, settings) for run in wave] == list(Recipe.of(settings).plan)


def test_stages_on_ray_run_alone() -> None:
    assert ["distill-source-gta5"] in _waves()
    assert ["distill-source-cityscapes"] in _waves()
    assert ["evaluate-gta5"] in _waves("compute.stages_at_once=3", "evaluate.workers=2")


def test_one_stage_for_several_sources_runs_side_by_side() -> None:
    assert ["learn-task-gta5", "learn-task-cityscapes"] in _waves("compute.stages_at_once=2")
    assert ["evaluate-gta5", "evaluate-cityscapes", "evaluate-potsdam-rgb"] in _waves("compute.stages_at_once=3")


def test_different_stages_never_share_a_wave() -> None:
    assert all(len({name.partition("-")[0] for name in wave}) == 1 for wave in _waves("compute.stages_at_once=99"))


def test_a_cluster_elsewhere_leaves_evaluation_here() -> None:
    elsewhere = ["compute.address=http://head:8265", "compute.storage=s3://bucket/runs", "evaluate.workers=2"]
    for overrides, own in ((elsewhere[2:], ("distill-proxy", "distill-source", "evaluate")), (elsewhere, ("evaluate",))):
        settings = load_settings(None, "demo", overrides)
        assert own_ray_stages(settings) == own
        assert ray_stages(settings) == ("distill-proxy", "distill-source", "evaluate"), "they run one by one, wherever"
