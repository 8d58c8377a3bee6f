"""One seed to one picture with its label."""

from __future__ import annotations

from typing import Literal

import numpy as np

from gkd_core.data.world import aerial
from gkd_core.data.world.aerial import aerial_scene
from gkd_core.data.world.sensors import AERIAL_STYLES, broad_aerial
from gkd_core.data.world.streets import street_scene
from gkd_core.data.world.styles import STREET_STYLES, broad_street, to_bytes

Seed = np.random.SeedSequence | int
Family = Literal["street", "aerial"]


def render(style: str, seed: Seed, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Picture (uint8, height × width × 3) and label (uint8 train ids, height × width) of a scene in a named style.

    The scene depends on the seed and on the place alone: two styles of one place give two looks of one scene.
    """
    rng = np.random.default_rng(seed)
    if style in AERIAL_STYLES:
        town, sensor = AERIAL_STYLES[style]
        scene = aerial_scene(rng, size, town)
        return to_bytes(sensor(scene, rng)), scene.label
    scene = street_scene(rng, size)
    return to_bytes(STREET_STYLES[style](scene, rng)), scene.label


def render_labelled(family: Family, seed: Seed, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """A labelled sample in a broad random style, as `render` returns it: for the demo teacher and the proxy images.

    Its colours and light are random; the looks of the benchmark's domains are not among its styles.
    """
    rng = np.random.default_rng(seed)
    if family == "street":
        scene = street_scene(rng, size)
        return to_bytes(broad_street(scene, rng)), scene.label
    scene = aerial_scene(rng, size, aerial.POTSDAM if rng.random() < 0.5 else aerial.VAIHINGEN)
    return to_bytes(broad_aerial(scene, rng)), scene.label
