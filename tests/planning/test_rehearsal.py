"""Dry runs: every profile's models and stages, whole but small."""

from __future__ import annotations

import pytest

from gkd_core.errors import SettingsError
from gkd_core.planning.rehearsal import rehearse, small
from gkd_core.settings import load_settings, profile_names
from gkd_core.stages import Recipe

PAPER = [name for name in profile_names() if name.startswith(("f2l", "f2f"))]

SHALLOW = [f"learn_task.mask2former.{key}" for key in ("pixel_layers=1", "decoder_layers=1", "points=256")]


def test_there_is_a_profile_for_each_of_the_papers_rows() -> None:
    assert PAPER == [
        "f2f-dinov2-b-s", "f2f-dinov2-l-b", "f2f-eva02-b-s", "f2f-eva02-b-s-released", "f2f-eva02-l-b", "f2f-eva02-l-b-released",
        "f2l-dinov2-b-deit-s", "f2l-dinov2-b-dino-s", "f2l-dinov2-l-deit-b", "f2l-dinov2-l-dino-b",
    ]  # fmt: skip


@pytest.mark.parametrize("profile", PAPER)
def test_every_stage_of_a_profile_runs(profile: str) -> None:
    """Both architectures at their full width, encoders and decoder one layer deep: seconds for all profiles together."""
    settings = small(load_settings(None, profile, SHALLOW), depth=1)
    lines = list(rehearse(settings))
    assert [line.partition(":")[0] for line in lines] == [run.name for run in Recipe.of(settings).plan][:-1]


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("profile", PAPER)
def test_every_stage_of_a_profile_runs_at_full_depth(profile: str) -> None:
    assert list(rehearse(small(load_settings(None, profile), depth=None)))[-1].startswith("illustrate-gta5: ran")


def test_small_changes_sizes_and_weights_and_no_more() -> None:
    full = load_settings(None, "f2l-dinov2-b-deit-s")
    less = small(full, depth=3)
    assert (less.teacher.arch, less.student.arch) == (full.teacher.arch, full.student.arch)
    assert less.teacher.options == less.student.options == {"depth": 3}
    assert less.teacher.weights == less.student.weights == "random"
    assert (less.distill_proxy.patch_size, less.distill_proxy.image_size) == (14, (56, 56))
    assert (less.distill_source.patch_size, less.distill_source.image_size) == (16, (64, 64))
    assert less.learn_task.image_size == less.evaluate.window == (64, 64)
    assert less.learn_task.mask2former == full.learn_task.mask2former
    assert {less.distill_proxy.updates, less.distill_source.updates, less.learn_task.updates} == {1}
    assert less.distill_source.augment == full.distill_source.augment
    assert small(load_settings(None, "f2f-dinov2-l-b"), None).distill_proxy.updates == 0


def test_a_depth_that_an_architecture_has_not_is_named() -> None:
    with pytest.raises(SettingsError, match=r"options: .* refuses \{'depth': 1\}"):
        list(rehearse(small(load_settings(None, "camvid"), depth=1)))
