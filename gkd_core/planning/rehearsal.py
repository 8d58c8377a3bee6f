"""A dry run: the recipe's own stages, with the profile's models and random weights, for one update each on small images.

What is rehearsed is everything but size: architectures, heads, decoder, losses, optimizers, files. The images are the embedded
world's, which has the layouts of the real datasets.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from gkd_core.files import scratch_folder
from gkd_core.settings import Settings, settings_from_tree
from gkd_core.stages.facts import MATRIX
from gkd_core.stages.recipe import Recipe
from gkd_core.stages.work import run_stage

PATCHES = 4  # a side of every crop: with patches of 16 pixels the coarsest map, at stride 32, still has more than one pixel
SIDE = 64  # of the crop where the encoders keep their own patch
IMAGES = 2
WORLD = {
    "street_size": [64, 128],
    "aerial_size": [64, 64],
    "proxy_images": IMAGES,
    "train_images": IMAGES,
    "val_images": IMAGES,
    "target_images": IMAGES,
}


def small(settings: Settings, depth: int | None) -> Settings:
    """The same settings for a dry run: the world's images, crops of 4 × 4 patches, one update of two images, this process.

    Args:
        depth: blocks of both transformers; None leaves them all.
    """
    tree = settings.model_dump(mode="json")
    tree["data"] |= {"world": WORLD, "root": None, "catalogs": [], "proxy": "proxy/all", "benchmarks": ["G2C"]}
    for role in ("teacher", "student"):
        tree[role] |= {"weights": "random"}
        tree[role]["options"] |= {} if depth is None else {"depth": depth}
    for name, section in (("distill_proxy", settings.distill_proxy), ("distill_source", settings.distill_source)):
        if section.updates != 0:
            tree[name] |= _once(section.patch_size) | {"epochs": None, "accumulate": 1, "warm_start": {"updates": 0}}
    tree["learn_task"] |= _once(settings.distill_source.patch_size) | {"end_to_end_updates": 1}
    crop = tree["learn_task"]["image_size"]
    tree["evaluate"] |= {"window": crop, "stride": crop, "workers": 0}
    tree["compute"] |= {"workers": 0, "device": "cpu", "loaders": 0}
    return settings_from_tree(tree)


def rehearse(settings: Settings) -> Iterator[str]:
    """Run every stage of the plan but the report in a folder that is removed afterwards; one line a stage, when it is done.

    Raises:
        GkdError: what would stop the real run too.
    """
    with scratch_folder("dry-run") as folder:
        recipe = Recipe.of(settings)
        for run in recipe.plan:
            if run.stage == MATRIX.name:
                continue  # it draws scores, which mean nothing here
            start = time.monotonic()
            run_stage(recipe, run, folder)
            yield f"{run.name}: ran ({time.monotonic() - start:.1f} s)"


def _once(patch: int | None) -> dict[str, Any]:
    side = SIDE if patch is None else PATCHES * patch
    return {"updates": 1, "batch_size": IMAGES, "image_size": [side, side]}
