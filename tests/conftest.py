"""Fixtures that more than one folder of tests needs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import torch

from gkd_core.models.build import build_encoder
from gkd_core.models.encoder import Encoder
from gkd_core.settings import EncoderSettings, Settings, settings_from_tree

torch.set_num_threads(1)
# Nothing is asserted as a time: on a busy machine any example may take long. A change is judged by the same examples each time;
# `make test-all` looks for new ones (`--hypothesis-profile wide`).
hypothesis.settings.register_profile("gkd", deadline=None, derandomize=True)
hypothesis.settings.register_profile("wide", deadline=None, max_examples=1000)
hypothesis.settings.load_profile("gkd")

TINY_VIT = {
    "arch": "vit_tiny_patch16_224",
    "patch_size": 8,
    "image_size": 32,
    "options": {"embed_dim": 24, "depth": 2, "num_heads": 2},
}
TINY_DISTILL = {
    "updates": 3, "batch_size": 4, "image_size": [32, 32], "patch_size": None, "lr": 1e-3, "lr_batch": None,
    "augment": "light", "repeated_augmentation": 1, "precision": "fp32", "ema_decay": None,
    "warm_start": {"updates": 1}, "checkpoint_every": 2, "log_every": 1
}  # fmt: skip


@pytest.hookimpl(tryfirst=True)  # xdist reads the groups in the same hook
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """With `--dist loadgroup`: files stay together, and the groups that files name do, such as `ray`, one cluster at a time."""
    for item in items:
        if item.get_closest_marker("xdist_group") is None:
            item.add_marker(pytest.mark.xdist_group(item.location[0]))


@pytest.fixture(scope="session", autouse=True)
def _key_of_backups(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A key of the tests' own, in the place of the user's."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("GKD_BACKUP_KEY_FILE", str(tmp_path_factory.mktemp("key") / "backup.key"))
        yield


@pytest.fixture(scope="session")
def official() -> Path:
    """The folder of values that the authors' code computed."""
    return Path(__file__).parent / "golden"


@pytest.fixture(scope="session")
def vit_settings() -> EncoderSettings:
    """A ViT of 24 channels and two blocks that sees 4 × 4 patches of a 32-pixel image."""
    return EncoderSettings.model_validate(TINY_VIT)


@pytest.fixture
def vit(vit_settings: EncoderSettings) -> Encoder:
    return build_encoder(vit_settings, seed=0)


@pytest.fixture(scope="session")
def tiny_tree() -> dict[str, Any]:
    """Settings, as a plain tree, of the whole recipe on a world of a few 32-pixel images, in this process."""
    return {
        "data": {
            "world": {
                "street_size": [32, 64], "aerial_size": [32, 32], "proxy_images": 6,
                "train_images": 6, "val_images": 2, "target_images": 2
            }
        },
        "teacher": TINY_VIT,
        "student": TINY_VIT | {"options": {"embed_dim": 16, "depth": 1, "num_heads": 2}},
        "distill_proxy": TINY_DISTILL,
        "distill_source": TINY_DISTILL | {"updates": 2},
        "learn_task": {"updates": 2, "batch_size": 2, "image_size": [32, 32], "decoder": "linear"},
        "evaluate": {"window": [32, 32], "stride": [32, 32]},
        "illustrate": {"images": 0},
        "compute": {"workers": 0, "device": "cpu"},
    }  # fmt: skip


@pytest.fixture(scope="session")
def tiny_settings(tiny_tree: dict[str, Any]) -> Settings:
    return settings_from_tree(tiny_tree)
