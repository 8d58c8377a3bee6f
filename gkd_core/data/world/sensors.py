"""How an aerial tile looks: four bands of reflectance, and the three that a sensor delivers."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from gkd_core.data.world import aerial
from gkd_core.data.world.scene import Scene, smooth_noise, white_noise
from gkd_core.data.world.styles import bend, broad_light, paint, random_palette

Sensor = Callable[[Scene, np.random.Generator], np.ndarray]

# Red, green, blue, near infrared, by class; plants shine in the infrared, roofs and roads do not.
REFLECTANCE = np.array(
    [
        [0.52, 0.52, 0.53, 0.42],  # impervious surface
        [0.66, 0.42, 0.36, 0.46],  # building
        [0.42, 0.56, 0.3, 0.8],  # low vegetation
        [0.2, 0.36, 0.18, 0.66],  # tree
        [0.55, 0.55, 0.65, 0.3],  # car
        [0.58, 0.48, 0.34, 0.5],  # clutter
        [0.45, 0.45, 0.45, 0.45],
    ],
    dtype=np.float32,
)


def potsdam_rgb(scene: Scene, rng: np.random.Generator) -> np.ndarray:
    """Red, green and blue of the four bands."""
    return _bands(scene, rng)[..., [0, 1, 2]]


def potsdam_irrg(scene: Scene, rng: np.random.Generator) -> np.ndarray:
    """Near infrared, red and green of the same four bands: a true change of bands, not of colours."""
    return _bands(scene, rng)[..., [3, 0, 1]]


def vaihingen_irrg(scene: Scene, rng: np.random.Generator) -> np.ndarray:
    """Near infrared, red and green of a flatter, hazier sensor."""
    image = paint(scene, REFLECTANCE, rng, variety=0.12, contrast=0.5, grain=0.06)[..., [3, 0, 1]]
    return bend(np.clip(image, 0, 1), 0.8) * np.array([0.85, 0.75, 0.8], dtype=np.float32) + np.float32(0.08)


def broad_aerial(scene: Scene, rng: np.random.Generator) -> np.ndarray:
    """Random mixes of bands of random reflectance under random light."""
    bands = paint(
        scene, random_palette(rng, REFLECTANCE), rng, variety=rng.uniform(0.02, 0.2), contrast=rng.uniform(0.15, 0.8), grain=0.0
    )
    mix = rng.dirichlet(np.full(4, 0.4), size=3).astype(np.float32)
    return broad_light(bands @ mix.T, rng)


def _bands(scene: Scene, rng: np.random.Generator) -> np.ndarray:
    """All four bands as Potsdam's camera sees them: float32 (height, width, 4)."""
    bands = paint(scene, REFLECTANCE, rng, variety=0.08, contrast=0.4, grain=0.03)
    shade = 1 + 0.12 * smooth_noise(rng, scene.surface.shape, (3, 3))[..., None]
    return bands * shade + np.float32(0.01) * white_noise(rng, bands.shape)


AERIAL_STYLES: dict[str, tuple[aerial.Town, Sensor]] = {
    "potsdam-rgb": (aerial.POTSDAM, potsdam_rgb),
    "potsdam-irrg": (aerial.POTSDAM, potsdam_irrg),
    "vaihingen-irrg": (aerial.VAIHINGEN, vaihingen_irrg),
}
