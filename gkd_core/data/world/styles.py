"""How a scene looks: palettes, light and weather, one function a style. Shape and texture stay, colours change.

A painted picture is float32 (height, width, 3), nominally 0 … 1; `to_bytes` ends it. The broad style is what the proxy
images and the demo teacher see: random palettes and light, and none of the looks of the target domains.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageFilter

from gkd_core.data.world import streets
from gkd_core.data.world.scene import Scene, smooth_noise, white_noise

Painter = Callable[[Scene, np.random.Generator], np.ndarray]

GREY = (0.45, 0.45, 0.45)
GTA = {
    streets.ROAD: (0.33, 0.32, 0.36), streets.SIDEWALK: (0.68, 0.6, 0.56), streets.BUILDING: (0.72, 0.55, 0.4),
    streets.FENCE: (0.55, 0.4, 0.3), streets.POLE: (0.2, 0.2, 0.24), streets.SIGN: (0.9, 0.75, 0.15),
    streets.VEGETATION: (0.2, 0.55, 0.18), streets.TERRAIN: (0.5, 0.66, 0.25), streets.SKY: (0.45, 0.7, 0.98),
    streets.PERSON: (0.85, 0.25, 0.35), streets.CAR: (0.2, 0.3, 0.75), streets.BUS: (0.85, 0.5, 0.1),
}  # fmt: skip
CITY = {
    streets.ROAD: (0.4, 0.41, 0.4), streets.SIDEWALK: (0.48, 0.47, 0.46), streets.BUILDING: (0.42, 0.42, 0.39),
    streets.FENCE: (0.36, 0.36, 0.35), streets.POLE: (0.42, 0.43, 0.42), streets.SIGN: (0.5, 0.52, 0.56),
    streets.VEGETATION: (0.26, 0.34, 0.25), streets.TERRAIN: (0.38, 0.42, 0.3), streets.SKY: (0.74, 0.77, 0.74),
    streets.PERSON: (0.32, 0.3, 0.31), streets.CAR: (0.3, 0.31, 0.33), streets.BUS: (0.45, 0.38, 0.35),
}  # fmt: skip


def to_bytes(image: np.ndarray) -> np.ndarray:
    """A painted picture as uint8 (height, width, 3), clipped."""
    levels: np.ndarray = np.clip(image, 0, 1) * 255 + 0.5
    return levels.astype(np.uint8)


def bend(image: np.ndarray, gamma: float) -> np.ndarray:
    """A picture of values 0 … 1 with its tone curve bent: below 1 lighter, above 1 darker; float32."""
    bent: np.ndarray = image ** np.float32(gamma)
    return bent


def palette_of(colors: dict[int, tuple[float, float, float]], classes: int) -> np.ndarray:
    """Rows of colour by surface, float32 (classes + 1, 3); the last row is for things of no class."""
    palette = np.full((classes + 1, 3), GREY, dtype=np.float32)
    for surface, color in colors.items():
        palette[surface] = color
    return palette


def paint(
    scene: Scene, palette: np.ndarray, rng: np.random.Generator, variety: float, contrast: float, grain: float
) -> np.ndarray:
    """Colour a scene: each thing its class's row of `palette` (…, bands), give or take `variety`; texture of strength
    `contrast` on top, then noise of strength `grain`. Returns float32 (height, width, bands)."""
    bands = palette.shape[1]
    tints = np.float32(variety) * (0.7 * white_noise(rng, (256, 1)) + 0.5 * white_noise(rng, (256, bands)))
    image: np.ndarray = palette[scene.surface] + tints[scene.part]
    image *= (1 + np.float32(contrast) * scene.detail)[..., None]
    if grain > 0:
        image += np.float32(grain) * white_noise(rng, image.shape)
    return image


def gta(scene: Scene, rng: np.random.Generator) -> np.ndarray:
    """The source: one saturated palette, clean."""
    return paint(scene, palette_of(GTA, streets.CLASSES), rng, variety=0.06, contrast=0.3, grain=0.01)


def cityscapes(scene: Scene, rng: np.random.Generator) -> np.ndarray:
    """Muted, textured, noisy; a slight green cast."""
    image = paint(scene, palette_of(CITY, streets.CLASSES), rng, variety=0.12, contrast=0.45, grain=0.045)
    image *= np.float32(rng.uniform(0.9, 1.3)) * np.array([0.96, 1.03, 0.97], dtype=np.float32)
    return image


def bdd(scene: Scene, rng: np.random.Generator) -> np.ndarray:
    """By day a blue or golden cast and hard contrast; by night, two in five, street light on black."""
    image = paint(scene, palette_of(CITY, streets.CLASSES), rng, variety=0.16, contrast=0.6, grain=0.04)
    if rng.random() < 0.4:
        return _darken(scene, image, rng, gain=0.35, cast=(1.15, 0.95, 0.7))
    cast = (0.8, 1.0, 1.3) if rng.random() < 0.5 else (1.3, 1.05, 0.7)
    return (image * np.array(cast, dtype=np.float32) - 0.4) * np.float32(1.35) + 0.45


def mapillary(scene: Scene, rng: np.random.Generator) -> np.ndarray:
    """Every camera and continent: real-life colours bent by a palette, a white balance and a gamma of each image's own."""
    natural = 0.5 * palette_of(CITY, streets.CLASSES) + 0.5 * palette_of(GTA, streets.CLASSES)
    palette = natural + 0.28 * white_noise(rng, natural.shape)
    image = paint(scene, palette, rng, variety=0.15, contrast=rng.uniform(0.3, 0.7), grain=0.04)
    balanced: np.ndarray = np.clip(image * (1 + 0.3 * white_noise(rng, (3,))), 0, 1)
    return bend(balanced, rng.uniform(0.6, 1.5))


def night(scene: Scene, rng: np.random.Generator) -> np.ndarray:
    """Dark and blue, with the glow of lamps and lit windows."""
    return _darken(scene, cityscapes(scene, rng), rng, gain=0.32, cast=(0.8, 0.9, 1.3))


def fog(scene: Scene, rng: np.random.Generator) -> np.ndarray:
    """Grey veil that thickens with distance; little noise is left in it."""
    image = cityscapes(scene, rng)
    far = np.where(scene.surface == streets.SKY, 1.0, scene.depth).astype(np.float32)
    veil = np.clip(rng.uniform(0.3, 0.45) + 0.75 * far, 0, 0.93)[..., None].astype(np.float32)
    veiled: np.ndarray = image * (1 - veil) + np.array([0.78, 0.79, 0.8], dtype=np.float32) * veil
    return veiled


def rain(scene: Scene, rng: np.random.Generator) -> np.ndarray:
    """Dull light, a wet road that mirrors the sky, and slanted streaks."""
    image = cityscapes(scene, rng) * np.float32(0.62)
    wet = (scene.surface == streets.ROAD)[..., None] & (smooth_noise(rng, scene.surface.shape, (5, 8)) > -0.2)[..., None]
    image = np.where(wet, 0.55 * image + 0.4 * image[::-1], image)
    return image + np.float32(0.5) * _streaks(rng, scene.surface.shape)[..., None]


def snow(scene: Scene, rng: np.random.Generator) -> np.ndarray:
    """White ground and white caps on whatever has a top, and falling flecks."""
    image = cityscapes(scene, rng)
    cover = np.isin(scene.surface, (streets.TERRAIN, streets.SIDEWALK)) * 0.8 + (scene.surface == streets.ROAD) * 0.45
    cover = cover + (scene.surface == streets.VEGETATION) * 0.4 * (scene.detail > 0)
    cover = np.clip(cover * (1 + 0.4 * smooth_noise(rng, cover.shape, (6, 10))), 0, 0.9)[..., None].astype(np.float32)
    image = image * (1 - cover) + np.array([0.9, 0.92, 0.96], dtype=np.float32) * cover
    flecks = rng.random(scene.surface.shape, dtype=np.float32) > 0.96
    return np.where(flecks[..., None], np.float32(0.97), image)


def broad_street(scene: Scene, rng: np.random.Generator) -> np.ndarray:
    """Random colours for every class, random light: what the proxy and the demo teacher see."""
    palette = random_palette(rng, palette_of(GTA, streets.CLASSES))
    return broad_light(
        paint(scene, palette, rng, variety=rng.uniform(0.02, 0.25), contrast=rng.uniform(0.15, 0.8), grain=0.0), rng
    )


def broad_light(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Random illumination gradient, gamma, blur and noise over a picture (height, width, 3)."""
    size = image.shape[:2]
    image = image * (1 + np.float32(rng.uniform(0, 0.45)) * smooth_noise(rng, size, (2, 2))[..., None])
    image = np.clip(image * np.float32(rng.uniform(0.5, 1.2)) + np.float32(rng.uniform(-0.1, 0.2)), 0, 1)
    image = bend(image, rng.uniform(0.6, 1.6))
    if rng.random() < 0.25:
        soft = Image.fromarray(to_bytes(image)).filter(ImageFilter.BoxBlur(float(rng.uniform(0.3, 0.8))))
        image = np.asarray(soft, dtype=np.float32) / 255
    return image + np.float32(rng.uniform(0, 0.14)) * white_noise(rng, image.shape)


def random_palette(rng: np.random.Generator, natural: np.ndarray) -> np.ndarray:
    """Colours of the shape of `natural`, drawn at random, with up to half of the natural ones left in."""
    share = rng.uniform(0, 0.5)
    drawn = rng.uniform(0.05, 0.95, natural.shape)
    return (share * natural + (1 - share) * drawn).astype(np.float32)


def _darken(
    scene: Scene, image: np.ndarray, rng: np.random.Generator, gain: float, cast: tuple[float, float, float]
) -> np.ndarray:
    """Take the daylight away; lamps along the street glow, some windows are lit."""
    height, width = scene.surface.shape
    dark: np.ndarray = np.clip(image, 0, 1) * (np.float32(gain) * np.array(cast, dtype=np.float32))
    dark[scene.surface == streets.SKY] *= np.float32(0.25)
    lit = (scene.surface == streets.BUILDING) & (scene.detail < -0.5) & (smooth_noise(rng, (height, width), (8, 12)) > 0.25)
    dark[lit] += np.array([0.6, 0.5, 0.2], dtype=np.float32)
    y = np.arange(height, dtype=np.float32)[:, None]
    x = np.arange(width, dtype=np.float32)[None, :]
    glow = np.zeros((height, width), dtype=np.float32)
    for _ in range(int(rng.integers(2, 5))):
        cy, cx, radius = rng.uniform(0.1, 0.5) * height, rng.uniform(0, 1) * width, rng.uniform(0.04, 0.13) * height
        glow += np.exp(((x - np.float32(cx)) ** 2 + (y - np.float32(cy)) ** 2) / np.float32(-2 * radius**2))
    return dark + glow[..., None] * np.array([1.0, 0.8, 0.45], dtype=np.float32) + np.float32(0.02) * white_noise(rng, dark.shape)


def _streaks(rng: np.random.Generator, size: tuple[int, ...]) -> np.ndarray:
    """Slanted lines, float32 (height, width) in 0 … 1."""
    drops = (rng.random(size, dtype=np.float32) > 0.989).astype(np.float32)
    streaks = drops.copy()
    for step in range(1, max(3, size[0] // 9)):
        streaks = np.maximum(streaks, np.roll(drops, (step, -(step // 3)), (0, 1)) * np.float32(1 - 0.05 * step))
    return streaks


STREET_STYLES: dict[str, Painter] = {
    "gta": gta, "cityscapes": cityscapes, "bdd": bdd, "mapillary": mapillary,
    "night": night, "fog": fog, "rain": rain, "snow": snow, "broad": broad_street,
}  # fmt: skip
