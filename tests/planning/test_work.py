"""Estimates: the counter against sums by hand, windows against the evaluation itself, numbers of images and updates."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from gkd_core.data.catalog.load import load_catalog
from gkd_core.errors import SettingsError
from gkd_core.evaluate.inference import sliding_logits
from gkd_core.models.flops import segmentor_cost
from gkd_core.planning.counts import image_count, image_size
from gkd_core.planning.flops import distillation_cost, task_cost
from gkd_core.planning.work import Machine, StageWork, plan_work, window_count
from gkd_core.settings import EncoderSettings, EvaluateSettings, LearnTaskSettings, Settings, load_settings, settings_from_tree
from gkd_core.stages import Recipe

CATALOG = load_catalog()


class ViT:
    """Matrix products of a ViT by hand: two FLOPs for a multiplication and an addition."""

    def __init__(self, dim: int, depth: int, patch: int, side: int) -> None:
        self.dim, self.patches = dim, (side // patch) ** 2
        tokens = self.patches + 1
        projections = 2 * tokens * dim * (3 * dim + dim + 4 * dim + 4 * dim)  # qkv, proj, fc1, fc2
        attention = 2 * 2 * tokens * tokens * dim  # queries by keys, weights by values
        self.blocks = depth * (projections + attention)
        self.stem = 2 * self.patches * dim * 3 * patch * patch
        self.forward = self.stem + self.blocks
        # The image needs no gradient: the stem has one product in the backward pass, all else two.
        self.training = 2 * self.stem + 3 * self.blocks


def test_stage_one_costs_what_the_sums_by_hand_say(tiny_settings: Settings) -> None:
    teacher, student = ViT(24, 2, 8, 32), ViT(16, 1, 8, 32)
    section = tiny_settings.distill_proxy.model_copy(update={"mask_probability": 0.5})
    costs = distillation_cost(section, "qsd", tiny_settings.teacher, tiny_settings.student)
    assert costs["teacher"].flops == teacher.forward
    tokens, wide, narrow = student.patches, teacher.dim, student.dim

    def head(count: int) -> int:
        projections = 3 * 2 * (2 * count * narrow * wide)  # phi and psi, forward and twice backward
        keys = 2 * (2 * count * count * wide)  # the teacher's keys need no gradient
        values = 3 * (2 * count * count * wide)
        return projections + keys + values

    # Every image is seen clean, every second one masked as well; fea and patch see all patches, token the class token.
    expected = 1.5 * student.training + 2 * head(tokens) + head(1)
    assert costs["student"].flops == pytest.approx(expected, rel=1e-3)
    heads = 3 * 2 * (2 * narrow + narrow * wide + wide)
    assert costs["heads"].parameters == heads


def test_counting_leaves_no_trace(tiny_settings: Settings) -> None:
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    distillation_cost(tiny_settings.distill_proxy, "mse", tiny_settings.teacher, tiny_settings.student)
    assert torch.equal(torch.rand(3), expected)


def test_what_is_trained_counts_three_times(tiny_settings: Settings) -> None:
    encoder = ViT(16, 1, 8, 32)
    section = LearnTaskSettings(decoder="linear", image_size=(32, 32))
    forward = segmentor_cost("student", tiny_settings.student, section, 19, (32, 32))
    classifier = 2 * encoder.patches * 16 * 19
    assert (forward["student"].flops, forward["decoder"].flops) == (encoder.forward, classifier)
    assert forward["decoder"].parameters == 16 * 19 + 19

    def stage_two(method: str) -> dict[str, float]:
        settings = tiny_settings.model_copy(update={"method": method})
        return {part: cost.flops for part, cost in task_cost(forward, settings).items()}

    assert stage_two("gkd") == {"student": encoder.forward, "decoder": 3 * classifier}
    assert stage_two("no-kd") == {"student": 3 * encoder.forward, "decoder": 3 * classifier}
    asked = ViT(24, 2, 8, 32).forward
    assert stage_two("single-stage-mse") == {"student": 3 * encoder.forward, "decoder": 3 * classifier, "teacher": asked}


def test_the_paper_counts_its_parameters_alike() -> None:
    """41.9 M for DeiT-S and Mask2Former on 512 × 512 (the paper), and mmsegmentation's order of 90 GFLOP for the decoder."""
    settings = load_settings(None, "f2l-dinov2-b-deit-s")
    costs = segmentor_cost("student", settings.student, settings.learn_task, 19, (512, 512))
    assert costs["student"].parameters + costs["decoder"].parameters == pytest.approx(41.9e6, rel=0.02)
    vit = ViT(384, 12, 16, 512)
    assert costs["student"].flops == pytest.approx(vit.forward, rel=1e-6)
    assert 80e9 < costs["decoder"].flops < 100e9


@pytest.mark.parametrize("size", [(64, 64), (50, 40), (96, 192), (65, 64), (129, 300)])
@pytest.mark.parametrize("stride", [43, 64])
def test_windows_are_those_of_the_evaluation(size: tuple[int, int], stride: int) -> None:
    seen = []

    class Counting(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            seen.append(len(images))
            return images[:, :1]

    sliding_logits(Counting(), torch.zeros(3, *size), (64, 64), (stride, stride), 4)
    settings = EvaluateSettings(window=(64, 64), stride=(stride, stride))
    assert window_count(size, settings) == sum(seen)
    assert window_count(size, settings.model_copy(update={"flip": True})) == 2 * sum(seen)
    assert window_count(size, settings.model_copy(update={"scales": (1.0, 1.0)})) == 2 * sum(seen)


def test_hours_follow_from_peak_and_share() -> None:
    assert Machine(peak_tflops=100, mfu=0.5).hours(50e12 * 3600) == 1
    assert Machine(peak_tflops=100, mfu=0.25).hours(50e12 * 3600) == 2


@pytest.fixture
def real(tiny_tree: dict[str, Any], tmp_path: Path) -> dict[str, Any]:
    """The tiny models with the paper's lengths on the paper's data, which are not at hand."""
    published = {"updates": None, "epochs": 100, "batch_size": 512}
    return tiny_tree | {
        "data": {"world": None, "root": str(tmp_path / "data"), "proxy": "imagenet/train", "benchmarks": ["G2C"]},
        "distill_proxy": tiny_tree["distill_proxy"] | published,
        "distill_source": tiny_tree["distill_source"] | published | {"epochs": 300, "batch_size": 128},
    }


def work(tree: dict[str, Any], workspace: Path) -> dict[str, StageWork]:
    return {each.name: each for each in plan_work(Recipe(settings_from_tree(tree), CATALOG), workspace)}


def test_epochs_become_updates_by_the_official_number_of_images(real: dict[str, Any], tmp_path: Path) -> None:
    works = work(real, tmp_path)
    assert list(works) == ["distill-proxy", "distill-source-gta5", "learn-task-gta5", "evaluate-gta5"]
    assert (works["distill-proxy"].images, works["distill-proxy"].updates) == (1_281_167, math.floor(1_281_167 * 100 / 512))
    assert (works["distill-source-gta5"].images, works["distill-source-gta5"].updates) == (24_966, 24_966 * 300 // 128)
    one = works["distill-proxy"]
    assert one.views == one.updates * 512
    assert one.flops == one.views * sum(cost.flops for cost in one.costs.values())
    assert works["evaluate-gta5"].images == 6382 + 500
    assert works["evaluate-gta5"].updates is None
    # GTA5 is shown within 720 × 1280 and Cityscapes at 512 × 1024, in windows of 32 without overlap.
    assert works["evaluate-gta5"].views == 6382 * math.ceil(704 / 32) * 40 + 500 * 16 * 32


def test_images_at_hand_count_more_than_the_catalog(real: dict[str, Any], tmp_path: Path) -> None:
    from PIL import Image

    folder = tmp_path / "data" / "imagenet" / "train" / "n01440764"
    folder.mkdir(parents=True)
    for index in range(3):
        Image.new("RGB", (50, 40)).save(folder / f"n01440764_{index}.JPEG")
    settings = settings_from_tree(real)
    assert image_count(Recipe(settings, CATALOG), CATALOG.domain("imagenet/train"), tmp_path) == 3
    assert image_size(Recipe(settings, CATALOG), CATALOG.domain("imagenet/train"), tmp_path) == (40, 50)
    assert image_count(Recipe(settings, CATALOG), CATALOG.domain("cityscapes/train"), tmp_path) == 2975
    assert image_count(Recipe(settings, CATALOG), CATALOG.domain("proxy/all"), tmp_path) is None


def test_what_nobody_knows_is_no_number(real: dict[str, Any], tmp_path: Path) -> None:
    unknown = real | {"data": real["data"] | {"proxy": "proxy/all"}}
    proxy = work(unknown, tmp_path)["distill-proxy"]
    assert (proxy.images, proxy.updates, proxy.views, proxy.flops) == (None, None, None, None)


def test_the_worlds_images_are_known_before_they_are_rendered(tiny_settings: Settings, tmp_path: Path) -> None:
    counts = {
        reference: image_count(Recipe(tiny_settings, CATALOG), CATALOG.domain(reference), tmp_path)
        for reference in ("proxy/all", "gta5/train", "gta5/val", "bdd100k/val")
    }
    assert counts == {"proxy/all": 6, "gta5/train": 6, "gta5/val": 2, "bdd100k/val": 2}


def test_a_sum_of_updates_needs_updates(real: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"end_to_end_updates: distill_proxy counts epochs.*no-kd; set a number"):
        work(real | {"method": "no-kd"}, tmp_path)
    told = real | {"method": "no-kd", "learn_task": real["learn_task"] | {"end_to_end_updates": 40}}
    assert work(told, tmp_path)["learn-task-gta5"].updates == 40


def test_the_teacher_row_costs_the_teacher(real: dict[str, Any], tmp_path: Path) -> None:
    costs = work(real | {"method": "teacher"}, tmp_path)["learn-task-gta5"].costs
    assert set(costs) == {"teacher", "decoder"}
    assert costs["teacher"].flops == ViT(24, 2, 8, 32).forward


def test_encoders_stand_on_the_steps_grid() -> None:
    """1a at patch 14 on 224: 256 patches; 1b at patch 16 on 512: 1024, whatever grid the encoder's settings name."""
    encoder = EncoderSettings(arch="vit_tiny_patch16_224", options={"embed_dim": 24, "depth": 1, "num_heads": 2})
    settings = load_settings(None, "f2l-dinov2-b-deit-s")
    for section, patches in ((settings.distill_proxy, 256), (settings.distill_source, 1024)):
        costs = distillation_cost(section, "mse", encoder, encoder)
        side = section.image_size[0]
        assert costs["teacher"].flops == ViT(24, 1, side // math.isqrt(patches), side).forward
