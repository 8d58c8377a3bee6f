"""Aerial tiles: roads around blocks of houses, lawns and trees, seen from above, in the six ISPRS classes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gkd_core.data.catalog.taxonomy import IGNORE
from gkd_core.data.world.scene import Canvas, Scene, foliage, smooth_noise, white_noise

CLASSES = 6
IMPERVIOUS, BUILDING, LOW_VEGETATION, TREE, CAR, CLUTTER = range(CLASSES)


@dataclass(frozen=True)
class Town:
    """What a place is like: how many houses, trees and cars a tile has, and the size of a house as a share of the tile."""

    houses: tuple[int, int]
    house_size: tuple[float, float]
    trees: tuple[int, int]
    tree_size: tuple[float, float]
    cars: tuple[int, int]


POTSDAM = Town(houses=(2, 6), house_size=(0.2, 0.42), trees=(4, 10), tree_size=(0.12, 0.24), cars=(2, 6))
VAIHINGEN = Town(houses=(4, 9), house_size=(0.14, 0.28), trees=(8, 16), tree_size=(0.09, 0.2), cars=(1, 4))


def aerial_scene(rng: np.random.Generator, size: tuple[int, int], town: Town) -> Scene:
    """Draw a tile of `size` (height, width) pixels. Borders of houses are ignored in the label, as in the ISPRS tiles."""
    canvas = Canvas(size)
    leaves = foliage(rng, size)
    grass = 0.25 * white_noise(rng, size) + 0.3 * smooth_noise(rng, size, (6, 6))
    canvas.fill(np.ones(size, dtype=bool), LOW_VEGETATION, grass)
    if rng.random() < 0.4:
        _clutter(canvas, rng)
    roads = _roads(canvas, rng)
    for _ in range(int(rng.integers(*town.houses, endpoint=True))):
        _house(canvas, rng, town)
    borders = _borders(canvas.surface == BUILDING)
    for _ in range(int(rng.integers(*town.cars, endpoint=True))):
        _car(canvas, rng, roads)
    for _ in range(int(rng.integers(*town.trees, endpoint=True))):
        _tree(canvas, rng, town, leaves)
    label = canvas.surface.copy()
    label[borders & (canvas.surface != TREE)] = IGNORE
    return canvas.finish(label)


def _roads(canvas: Canvas, rng: np.random.Generator) -> np.ndarray:
    """One or two straight roads with a pale middle line; returns their mask."""
    size = canvas.surface.shape
    mask, line = np.zeros(size, dtype=bool), np.zeros(size, dtype=bool)
    angle = rng.uniform(0, np.pi)
    for turn in (0.0, np.pi / 2)[: int(rng.integers(1, 3))]:
        across = (canvas.x - rng.uniform(0.2, 0.8) * canvas.width) * np.float32(np.cos(angle + turn)) + (
            canvas.y - rng.uniform(0.2, 0.8) * canvas.height
        ) * np.float32(np.sin(angle + turn))
        half = rng.uniform(0.06, 0.1) * canvas.width
        mask |= np.abs(across) < half
        line |= np.abs(across) < 0.01 * canvas.width + 0.2
    canvas.fill(mask, IMPERVIOUS, np.where(line, 0.8, 0.12 * white_noise(rng, mask.shape)))
    return mask


def _clutter(canvas: Canvas, rng: np.random.Generator) -> None:
    """A bare, rutted patch."""
    blob = smooth_noise(rng, (canvas.height, canvas.width), (3, 3))
    stripes = np.where((canvas.x + canvas.y) * 11 / canvas.height % 1 < 0.5, 0.6, -0.5)
    canvas.fill(blob > 0.35, CLUTTER, stripes)


def _house(canvas: Canvas, rng: np.random.Generator, town: Town) -> None:
    """A pitched roof: one side lit, the other in shade."""
    tall = rng.uniform(*town.house_size) * canvas.height
    wide = rng.uniform(*town.house_size) * canvas.width
    top, left = rng.uniform(-0.1, 0.9) * canvas.height, rng.uniform(-0.1, 0.9) * canvas.width
    part, lit = canvas.new_part(), 0.45 if rng.random() < 0.5 else -0.45
    canvas.fill_box(canvas.box(top, top + tall, left, left + wide), BUILDING, part, lit)
    half = (top + tall / 2, top + tall, left, left + wide) if wide > tall else (top, top + tall, left + wide / 2, left + wide)
    canvas.fill_box(canvas.box(*half), BUILDING, part, -lit)


def _car(canvas: Canvas, rng: np.random.Generator, roads: np.ndarray) -> None:
    """A car on a road, with a dark windscreen."""
    rows, columns = np.nonzero(roads & (canvas.surface == IMPERVIOUS))
    if rows.size == 0:
        return
    pick = int(rng.integers(rows.size))
    y, x = float(rows[pick]), float(columns[pick])
    long, short = 0.055 * canvas.width + 0.5, 0.03 * canvas.width + 0.5
    tall, wide = (long, short) if rng.random() < 0.5 else (short, long)
    part = canvas.new_part()
    canvas.fill_box(canvas.box(y - tall, y + tall, x - wide, x + wide), CAR, part, 0.3)
    canvas.fill_box(canvas.box(y - tall / 3, y + tall / 3, x - wide / 3, x + wide / 3), CAR, part, -0.9)


def _tree(canvas: Canvas, rng: np.random.Generator, town: Town, leaves: np.ndarray) -> None:
    side = rng.uniform(*town.tree_size) * canvas.width
    y, x = rng.uniform(0, canvas.height), rng.uniform(0, canvas.width)
    canvas.fill_ellipse(canvas.box(y - side / 2, y + side / 2, x - side / 2, x + side / 2), TREE, canvas.new_part(), leaves)


def _borders(mask: np.ndarray) -> np.ndarray:
    """Pixels of `mask` that touch a pixel outside it, left, right, above or below."""
    inside: np.ndarray = mask.copy()
    inside[1:] &= mask[:-1]
    inside[:-1] &= mask[1:]
    inside[:, 1:] &= mask[:, :-1]
    inside[:, :-1] &= mask[:, 1:]
    edge: np.ndarray = mask & ~inside
    return edge
