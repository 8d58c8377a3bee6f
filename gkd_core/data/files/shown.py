"""An image as an evaluation protocol shows it, and its labels as it scores them.

`scale` is a first step of its own, as the field does it on disk before any evaluation: Pillow's bicubic with antialias, rounded
to whole grey levels, and the nearest label (the release's `mapillary_resize.py`, without the JPEG that it writes on the way).
`max_size` is the second: one bilinear step without antialias, in floats.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from gkd_core.data.catalog.entries import Protocol

if TYPE_CHECKING:
    from torch import Tensor


def shown(pixels: np.ndarray, protocol: Protocol) -> Tensor:
    """Pixels, uint8 (H, W, 3), as the model sees them: (3, h, w) in 0..1."""
    from gkd_core.data.augment.transforms import resized, to_float  # torch takes seconds to load, and most data are not resized

    height, width = pixels.shape[:2]
    scaled = _scaled(pixels, protocol, Image.Resampling.BICUBIC)
    return resized(to_float(scaled), protocol.input_size(height, width))


def scored(ids: np.ndarray, protocol: Protocol) -> np.ndarray:
    """Train ids, uint8 (H, W), at the size at which they count."""
    return _scaled(ids, protocol, Image.Resampling.NEAREST) if protocol.resize_labels else ids


def _scaled(pixels: np.ndarray, protocol: Protocol, resampling: Image.Resampling) -> np.ndarray:
    height, width = protocol.scaled_size(pixels.shape[0], pixels.shape[1])
    if (height, width) == pixels.shape[:2]:
        return pixels
    return np.array(Image.fromarray(pixels).resize((width, height), resampling))
