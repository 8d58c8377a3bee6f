"""Street scenes: a road towards a vanishing point, house fronts, trees, fences, and what stands and drives there.

Twelve of the nineteen Cityscapes classes appear. All lengths scale with the picture, so any size works.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

from gkd_core.data.catalog.taxonomy import IGNORE
from gkd_core.data.world.scene import Canvas, Scene, foliage, smooth_noise, white_noise

CLASSES = 19
ROAD, SIDEWALK, BUILDING, FENCE, POLE, SIGN, VEGETATION, TERRAIN, SKY, PERSON, CAR, BUS = 0, 1, 2, 4, 5, 7, 8, 9, 10, 11, 13, 15
VOID = CLASSES
"""Surface of street furniture that has no class: its label is ignored."""


@dataclass(frozen=True)
class _View:
    """Where the road goes. A ground point at `t` pixels below the horizon and `u` to the side lies at column vanish + u · t."""

    horizon: float
    vanish: float
    road: float
    walk: float
    verges: tuple[float, float]


def street_scene(rng: np.random.Generator, size: tuple[int, int]) -> Scene:
    """Draw a street of `size` (height, width) pixels."""
    canvas = Canvas(size)
    height, width = size
    view = _View(
        horizon=height * rng.uniform(0.34, 0.48),
        vanish=width * rng.uniform(0.35, 0.65),
        road=rng.uniform(0.9, 1.4) * min(1.0, width / height / 1.5),
        walk=rng.uniform(0.4, 0.7),
        verges=(_verge(rng), _verge(rng)),
    )
    leaves = foliage(rng, size)
    canvas.fill(np.ones(size, dtype=bool), SKY, 0.5 * smooth_noise(rng, size, (4, 5)))
    _ground(canvas, view, rng, leaves)
    _fronts(canvas, view, rng, leaves)
    _things(canvas, view, rng, leaves)
    label = canvas.surface.copy()
    label[label == VOID] = IGNORE
    return canvas.finish(label)


def _verge(rng: np.random.Generator) -> float:
    return float(rng.uniform(0.5, 1.2)) if rng.random() < 0.6 else 0.0


def _ground(canvas: Canvas, view: _View, rng: np.random.Generator, leaves: np.ndarray) -> None:
    """Road with lane marks, sidewalk with slabs, and grass beyond, down from the horizon."""
    t = np.maximum(canvas.y - view.horizon, 0.5)
    u = (canvas.x - view.vanish) / t
    side = np.abs(u)
    below = canvas.y > view.horizon
    depth = np.clip(3.0 / (t + 2.0), 0, 1)
    along = canvas.height / t * 3
    canvas.fill(np.broadcast_to(below, side.shape), TERRAIN, 0.5 * leaves, depth)
    slabs = 0.35 * np.where((np.floor(side * 5) + np.floor(along)) % 2 == 0, 1.0, -1.0)
    canvas.fill(below & (side < view.road + view.walk), SIDEWALK, slabs, depth)
    dashes = (np.abs(u - rng.uniform(-0.1, 0.1)) < 0.05) & ((along + rng.uniform(0, 1)) % 1 < 0.55)
    edges = np.abs(side - view.road * 0.9) < 0.03
    asphalt = 0.12 * white_noise(rng, side.shape)
    canvas.fill(below & (side < view.road), ROAD, np.where(dashes | edges, 0.9, asphalt), depth)


def _fronts(canvas: Canvas, view: _View, rng: np.random.Generator, leaves: np.ndarray) -> None:
    """House fronts, rows of trees and open stretches, segment by segment along both sides of the street."""
    cuts = np.sort(rng.uniform(0, canvas.width, int(rng.integers(4, 8))))
    bounds = [0.0, *cuts.tolist(), float(canvas.width)]
    for left, right in itertools.pairwise(bounds):
        x = canvas.x[:, round(left) : round(right)]
        if x.size == 0:
            continue
        away = np.abs(x - view.vanish)
        verge = view.verges[0 if (left + right) / 2 < view.vanish else 1]
        bottom = view.horizon + away / (view.road + view.walk + verge)
        kind = rng.choice(["house", "house", "trees", "fence"])
        rise = away + 0.12 * canvas.width
        if kind == "house":
            top = view.horizon - rng.uniform(0.45, 1.1) * rise * (canvas.height / canvas.width) * 1.6
            _front(canvas, x, top, bottom, BUILDING, _windows(canvas, x, top, bottom, rng))
            continue
        wobble = smooth_noise(rng, (1, x.shape[1]), (1, max(2, x.shape[1] // 5)))
        top = view.horizon - (rng.uniform(0.15, 0.6) + 0.12 * wobble) * rise * (canvas.height / canvas.width) * 1.6
        _front(canvas, x, top, bottom, VEGETATION, leaves[:, round(left) : round(right)])
        if kind == "fence":
            rails = np.broadcast_to(np.where(x * 16 / canvas.height % 1 < 0.5, 0.6, -0.7), (canvas.height, x.shape[1]))
            _front(canvas, x, bottom - 0.55 * (bottom - view.horizon) - 0.05 * canvas.height, bottom, FENCE, rails)


def _front(canvas: Canvas, x: np.ndarray, top: np.ndarray, bottom: np.ndarray, surface: int, detail: np.ndarray) -> None:
    """A standing surface over the columns `x`, from row `top` to row `bottom` of each."""
    columns = slice(int(x[0, 0]), int(x[0, -1]) + 1)
    mask = (canvas.y >= top) & (canvas.y < bottom)
    canvas.surface[:, columns][mask] = surface
    canvas.part[:, columns][mask] = canvas.new_part()
    canvas.detail[:, columns][mask] = detail[mask]
    span = np.abs(bottom - top) / canvas.height
    canvas.depth[:, columns][mask] = np.broadcast_to(np.clip(0.75 - 0.55 * span, 0.1, 1), mask.shape)[mask]


def _windows(canvas: Canvas, x: np.ndarray, top: np.ndarray, bottom: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Dark windows in a lighter wall, in floors that follow the perspective."""
    floors = int(rng.integers(2, 6))
    column = (x / canvas.width * rng.uniform(14, 26)) % 1
    floor = (bottom - canvas.y) / np.maximum(bottom - top, 1) * floors % 1
    window = (np.abs(column - 0.5) < 0.28) & (np.abs(floor - 0.5) < 0.27)
    return np.where(window, -0.75, 0.25)


def _things(canvas: Canvas, view: _View, rng: np.random.Generator, leaves: np.ndarray) -> None:
    """Cars, buses, people, poles, signs, trees and furniture, the far ones first."""
    reach = canvas.height - view.horizon
    count = int(rng.integers(8, 14))
    kinds = rng.choice(
        ["car", "bus", "person", "pole", "sign", "tree", "furniture"], size=count, p=[0.26, 0.08, 0.24, 0.08, 0.14, 0.14, 0.06]
    )
    distances = np.sort(rng.uniform(0.18, 0.85, count)) * reach
    for kind, t in zip(kinds.tolist(), distances.tolist(), strict=True):
        side = 1 if rng.random() < 0.5 else -1
        on_road = kind in ("car", "bus")
        u = side * (rng.uniform(0.25, 0.75) * view.road if on_road else view.road + rng.uniform(0.15, 0.9) * view.walk)
        foot, middle = view.horizon + t, view.vanish + u * t
        if -0.1 * canvas.width < middle < 1.1 * canvas.width:
            _THINGS[kind](canvas, foot, middle, t, leaves)


def _depth(t: float) -> float:
    return min(1.0, 3.0 / (t + 2.0))


def _car(canvas: Canvas, foot: float, middle: float, t: float, leaves: np.ndarray) -> None:
    part, depth, wide, tall = canvas.new_part(), _depth(t), 0.42 * t, 0.6 * t
    canvas.fill_box(canvas.box(foot - 0.6 * tall, foot, middle - wide, middle + wide), CAR, part, 0.1, depth)
    canvas.fill_box(canvas.box(foot - tall, foot - 0.6 * tall, middle - 0.7 * wide, middle + 0.7 * wide), CAR, part, 0.1, depth)
    canvas.fill_box(
        canvas.box(foot - 0.92 * tall, foot - 0.58 * tall, middle - 0.6 * wide, middle + 0.6 * wide), CAR, part, -0.8, depth
    )
    for wheel in (middle - 0.75 * wide, middle + 0.75 * wide):
        canvas.fill_box(canvas.box(foot - 0.18 * tall, foot, wheel - 0.2 * wide, wheel + 0.2 * wide), CAR, part, -1.0, depth)


def _bus(canvas: Canvas, foot: float, middle: float, t: float, leaves: np.ndarray) -> None:
    part, depth, wide, tall = canvas.new_part(), _depth(t), 0.42 * t, 1.15 * t
    canvas.fill_box(canvas.box(foot - tall, foot, middle - wide, middle + wide), BUS, part, 0.3, depth)
    canvas.fill_box(
        canvas.box(foot - 0.88 * tall, foot - 0.45 * tall, middle - 0.85 * wide, middle + 0.85 * wide), BUS, part, -0.8, depth
    )
    canvas.fill_box(canvas.box(foot - 0.12 * tall, foot, middle - 0.9 * wide, middle + 0.9 * wide), BUS, part, -0.9, depth)


def _person(canvas: Canvas, foot: float, middle: float, t: float, leaves: np.ndarray) -> None:
    part, depth, wide, tall = canvas.new_part(), _depth(t), 0.13 * t, 0.72 * t
    canvas.fill_box(canvas.box(foot - 0.45 * tall, foot, middle - 0.7 * wide, middle + 0.7 * wide), PERSON, part, -0.7, depth)
    canvas.fill_box(canvas.box(foot - 0.8 * tall, foot - 0.42 * tall, middle - wide, middle + wide), PERSON, part, 0.2, depth)
    canvas.fill_box(
        canvas.box(foot - tall, foot - 0.8 * tall, middle - 0.5 * wide, middle + 0.5 * wide), PERSON, part, 0.8, depth
    )


def _pole(canvas: Canvas, foot: float, middle: float, t: float, leaves: np.ndarray) -> None:
    wide = max(0.05 * t, 0.012 * canvas.height)
    canvas.fill_box(canvas.box(foot - 1.8 * t, foot, middle - wide, middle + wide), POLE, canvas.new_part(), 0.2, _depth(t))


def _sign(canvas: Canvas, foot: float, middle: float, t: float, leaves: np.ndarray) -> None:
    _pole(canvas, foot, middle, 0.7 * t, leaves)
    part, side, top = canvas.new_part(), 0.24 * t, foot - 1.2 * t
    canvas.fill_box(canvas.box(top - side, top + side, middle - side, middle + side), SIGN, part, 0.8, _depth(t))
    canvas.fill_box(
        canvas.box(top - 0.5 * side, top + 0.5 * side, middle - 0.5 * side, middle + 0.5 * side), SIGN, part, -0.6, _depth(t)
    )


def _tree(canvas: Canvas, foot: float, middle: float, t: float, leaves: np.ndarray) -> None:
    part, trunk, crown = canvas.new_part(), 0.07 * t, 0.5 * t
    canvas.fill_box(canvas.box(foot - 0.9 * t, foot, middle - trunk, middle + trunk), VEGETATION, part, -0.8, _depth(t))
    canvas.fill_ellipse(
        canvas.box(foot - 1.8 * t, foot - 0.6 * t, middle - crown, middle + crown), VEGETATION, part, leaves, _depth(t)
    )


def _furniture(canvas: Canvas, foot: float, middle: float, t: float, leaves: np.ndarray) -> None:
    canvas.fill_box(
        canvas.box(foot - 0.35 * t, foot, middle - 0.2 * t, middle + 0.2 * t), VOID, canvas.new_part(), 0.0, _depth(t)
    )


_THINGS = {"car": _car, "bus": _bus, "person": _person, "pole": _pole, "sign": _sign, "tree": _tree, "furniture": _furniture}
