"""Train ids as colours."""

from __future__ import annotations

import numpy as np
from matplotlib.colors import to_hex

from gkd_core.data.catalog.taxonomy import IGNORE, Taxonomy
from gkd_core.data.colors import class_patches, color_label

DUO = Taxonomy(name="duo", classes=("road", "car"), colors=((90, 90, 90), (0, 0, 142)))


def test_classes_have_their_colour_and_ignored_pixels_are_striped() -> None:
    label = np.array([[0, 1] * 16] * 32, dtype=np.uint8)
    label[:, 16:] = IGNORE
    colors = color_label(label, DUO)
    assert colors[5, 4].tolist() == [90, 90, 90]
    assert colors[5, 5].tolist() == [0, 0, 142]
    assert {tuple(color) for color in colors[:, 16:].reshape(-1, 3).tolist()} == {(0, 0, 0), (255, 255, 255)}


def test_the_legend_has_what_occurs_and_no_more() -> None:
    cars = np.array([[1, 1]], dtype=np.uint8)
    assert [patch.get_label() for patch in class_patches([cars], DUO)] == ["car"]
    assert [to_hex(patch.get_facecolor()) for patch in class_patches([cars], DUO)] == ["#00008e"]
    both = np.array([[0, IGNORE]], dtype=np.uint8)
    assert [patch.get_label() for patch in class_patches([cars, both], DUO)] == ["road", "car", "ignored"]
