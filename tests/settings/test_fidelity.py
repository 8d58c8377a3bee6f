"""The published profiles against the numbers of paper and release; docs/fidelity.md says the same in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from gkd_core.settings import Settings, load_settings, profile_names

# What the release runs, key by key. A profile's own choices (architectures, weights) are below.
ALWAYS: Mapping[str, Any] = {
    "method": "gkd", "data.world": None, "data.proxy": "imagenet/train",
    "distill_source.epochs": 300, "distill_source.updates": None, "distill_source.batch_size": 128,
    "distill_source.image_size": (512, 512), "distill_source.patch_size": 16, "distill_source.heads": "fresh",
    "learn_task.updates": 40_000, "learn_task.batch_size": 4, "learn_task.image_size": (512, 512),
    "learn_task.freeze_encoder": True, "learn_task.decoder": "mask2former", "learn_task.decoder_width": 256,
    "learn_task.feature_norm": "none", "learn_task.padding": "mean",
    "learn_task.lr": 1e-4, "learn_task.weight_decay": 0.05, "learn_task.poly_power": 0.9, "learn_task.clip_norm": None,
    "learn_task.precision": "fp32", "learn_task.label_fraction": 1.0,
    "learn_task.resize_range": (0.5, 2.0), "learn_task.resize_of": "crop", "learn_task.longest_edge": 2048,
    "learn_task.cat_max_ratio": 0.75, "learn_task.colors": "distortion",
    "learn_task.mask2former.queries": 100, "learn_task.mask2former.decoder_layers": 9,
    "learn_task.mask2former.pixel_layers": 6, "learn_task.mask2former.class_weight": 2.0,
    "learn_task.mask2former.mask_weight": 5.0, "learn_task.mask2former.dice_weight": 5.0,
    "learn_task.mask2former.no_object_weight": 0.1, "learn_task.mask2former.points": 12_544,
    "learn_task.mask2former.oversample": 3.0, "learn_task.mask2former.importance": 0.75,
    "learn_task.mask2former.ignored": "background",
    "evaluate.window": (512, 512), "evaluate.stride": (341, 341), "evaluate.scales": (1.0,), "evaluate.flip": False,
}  # fmt: skip
STEP: Mapping[str, Any] = {
    "lr": 5e-4, "lr_batch": 512, "min_lr": 1e-5, "warmup_updates": 0, "warmup_lr": 1e-6, "weight_decay": 0.05, "clip_norm": None,
    "precision": "fp16", "ema_decay": 0.99996, "augment": "released", "repeated_augmentation": 3, "crop_scale": (0.08, 1.0),
    "color_jitter": 0.3, "num_heads": 1, "cls_weight": 1.0, "feat_weight": 1.0, "mask_weight": 1.0, "mask_probability": 0.5,
    "mask_ratio": 0.5, "warm_start.updates": 0, "fixed_views": None,
}  # fmt: skip
PROXY: Mapping[str, Any] = {"updates": None, "epochs": 100, "batch_size": 512, "image_size": (224, 224), "patch_size": 14}

# teacher, student, weights that the student starts from, and whether stage 1a runs.
PAIRS: Mapping[str, tuple[str, str, str, bool]] = {
    "f2l-dinov2-b-deit-s": (
        "vit_base_patch14_dinov2", "deit_small_patch16_224", "hub:deit_small_distilled_patch16_224.fb_in1k", True
    ),
    "f2l-dinov2-l-deit-b": (
        "vit_large_patch14_dinov2", "deit_base_patch16_224", "hub:deit_base_distilled_patch16_224.fb_in1k", True
    ),
    "f2l-dinov2-b-dino-s": ("vit_base_patch14_dinov2", "vit_small_patch16_224.dino", "hub", True),
    "f2l-dinov2-l-dino-b": ("vit_large_patch14_dinov2", "vit_base_patch16_224.dino", "hub", True),
    "f2f-dinov2-l-b": ("vit_large_patch14_dinov2", "vit_base_patch14_dinov2", "hub", False),
    "f2f-dinov2-b-s": ("vit_base_patch14_dinov2", "vit_small_patch14_dinov2", "hub", False),
    "f2f-eva02-l-b": ("eva02_large_patch14_224.mim_m38m", "eva02_base_patch14_224.mim_in22k", "hub", False),
    "f2f-eva02-b-s": ("eva02_base_patch14_224.mim_in22k", "eva02_small_patch14_224.mim_in22k", "hub", False),
    "f2f-eva02-l-b-released": ("eva02_large_patch14_224.mim_m38m", "eva02_base_patch14_224.mim_in22k", "hub", True),
    "f2f-eva02-b-s-released": ("eva02_base_patch14_224.mim_in22k", "eva02_small_patch14_224.mim_in22k", "hub", True),
}  # fmt: skip


def value(settings: Settings, key: str) -> Any:
    node: Any = settings
    for part in key.split("."):
        node = getattr(node, part)
    return node


def test_every_published_profile_is_in_the_table() -> None:
    assert sorted(PAIRS) == [name for name in profile_names() if name.startswith(("f2l", "f2f"))]


@pytest.mark.parametrize("profile", PAIRS)
def test_a_published_profile_has_the_releases_numbers(profile: str) -> None:
    settings = load_settings(None, profile)
    teacher, student, weights, proxy = PAIRS[profile]
    expected = dict(ALWAYS) | {f"distill_source.{key}": number for key, number in STEP.items()}
    if proxy:
        expected |= {f"distill_proxy.{key}": number for key, number in (STEP | PROXY).items()}
    else:
        expected["distill_proxy.updates"] = 0
    expected |= {"teacher.arch": teacher, "teacher.weights": "hub", "student.arch": student, "student.weights": weights}
    expected |= {"teacher.resize": "released", "student.resize": "released"}
    if "eva02" in profile:
        expected |= {"teacher.normalisation": "imagenet", "student.normalisation": "imagenet"}
    assert {key: value(settings, key) for key in expected} == expected


@pytest.mark.parametrize("profile", ["demo", "camvid"])
def test_the_measured_profiles_keep_the_forms_that_their_tables_were_measured_with(profile: str) -> None:
    settings = load_settings(None, profile)
    assert settings.distill_source.heads == "carried"
    assert settings.learn_task.feature_norm == "final"
    assert settings.learn_task.padding == "black"
    assert settings.learn_task.mask2former.ignored == "left-out"
