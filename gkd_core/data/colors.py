"""Train ids as colours, and the legend that explains them."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from matplotlib.patches import Patch

from gkd_core.data.catalog.taxonomy import IGNORE, Taxonomy

STRIPE = 12  # pixels at which stripes of ignored areas repeat, for an image 240 pixels high


def color_label(label: np.ndarray, taxonomy: Taxonomy) -> np.ndarray:
    """Train ids (height, width) as colours, uint8 (height, width, 3); what is ignored is striped black and white."""
    table = np.zeros((256, 3), dtype=np.uint8)
    table[: len(taxonomy.colors)] = taxonomy.colors
    colors = table[label]
    rows, columns = np.indices(label.shape)
    period = max(4, STRIPE * label.shape[0] // 240)
    stripes = (rows + columns) % period < period / 3
    colors[(label == IGNORE) & stripes] = 255
    return colors


def class_patches(labels: Iterable[np.ndarray], taxonomy: Taxonomy) -> list[Patch]:
    """A patch for each class that occurs in arrays of train ids, in their order, and one where pixels are ignored."""
    present = sorted({int(value) for label in labels for value in np.unique(label)})
    patches = [
        Patch(facecolor="#{:02x}{:02x}{:02x}".format(*taxonomy.colors[index]), edgecolor="black", linewidth=0.4,
              label=taxonomy.classes[index])
        for index in present
        if index != IGNORE
    ]  # fmt: skip
    if IGNORE in present:
        patches.append(Patch(facecolor="black", edgecolor="white", hatch="//////", linewidth=0, label="ignored"))
    return patches
