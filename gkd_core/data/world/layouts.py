"""Which domains the embedded world has, and how their files are named in the real archives.

Folders, suffixes and label ids come from the catalog; only the names within them are given here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

Count = Literal["train_images", "val_images", "target_images", "proxy_images"]


@dataclass(frozen=True)
class Layout:
    """One domain of the world. `name` gives an image's path below the domain's folder, suffix off, from its index.

    Domains with the same `scenes` show the same places, as Potsdam's RGB and IRRG tiles do. `zoom` multiplies the size.
    """

    domain: str
    style: str
    count: Count
    name: Callable[[int], str]
    scenes: str
    zoom: int = 1


def _layout(
    domain: str, style: str, count: Count, name: Callable[[int], str], scenes: str | None = None, zoom: int = 1
) -> Layout:
    return Layout(domain, style, count, name, scenes or domain, zoom)


def _digest(prefix: str, index: int, length: int) -> str:
    return hashlib.sha256(f"{prefix}{index}".encode()).hexdigest()[:length]


def _bdd(index: int) -> str:
    return f"{_digest('bdd', index, 8)}-{_digest('sequence', index, 8)}"


def _acdc(index: int) -> str:
    return f"GOPR0356/GOPR0356_frame_{index + 1:06d}"


def _potsdam(index: int) -> str:
    return f"2_10_{index * 512}_0_{index * 512 + 512}_512"


LAYOUTS = (
    _layout("gta5/train", "gta", "train_images", lambda index: f"{index + 1:05d}"),
    _layout("gta5/val", "gta", "val_images", lambda index: f"{index + 90_001:05d}"),
    _layout("cityscapes/train", "cityscapes", "train_images", lambda index: f"aachen/aachen_{index:06d}_000019"),
    _layout("cityscapes/val", "cityscapes", "val_images", lambda index: f"frankfurt/frankfurt_{index:06d}_000019"),
    _layout("bdd100k/val", "bdd", "target_images", _bdd),
    # Written at twice the size, because its protocol halves images and labels.
    _layout("mapillary/val", "mapillary", "target_images", lambda index: _digest("mapillary", index, 22), zoom=2),
    _layout("acdc-night/val", "night", "target_images", _acdc),
    _layout("acdc-snow/val", "snow", "target_images", _acdc),
    _layout("acdc-fog/val", "fog", "target_images", _acdc),
    _layout("acdc-rain/val", "rain", "target_images", _acdc),
    _layout("potsdam-rgb/train", "potsdam-rgb", "train_images", _potsdam),
    _layout("potsdam-rgb/val", "potsdam-rgb", "val_images", _potsdam, scenes="potsdam/val"),
    _layout("potsdam-irrg/val", "potsdam-irrg", "target_images", _potsdam, scenes="potsdam/val"),
    _layout(
        "vaihingen-irrg/val", "vaihingen-irrg", "target_images", lambda index: f"area38_{index * 512}_0_{index * 512 + 512}_512"
    ),
)

# Of the Mapillary names that mean one class, the one that the world writes; other classes have a single name.
MAPILLARY_NAMES = {
    "road": "construction--flat--road", "sidewalk": "construction--flat--sidewalk", "pole": "object--support--pole",
    "traffic sign": "object--traffic-sign--front", "void": "void--unlabeled",
}  # fmt: skip
