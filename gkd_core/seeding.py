"""Random streams that are a pure function of their keys, so that a resumed run draws what the undisturbed run drew."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


def seed_of(*keys: int | str) -> int:
    """A 63-bit seed from a path of keys, such as `("crops", seed, step, rank)`."""
    digest = hashlib.sha256("/".join(str(key) for key in keys).encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def generator(*keys: int | str) -> torch.Generator:
    """A CPU generator for a path of keys."""
    return torch.Generator().manual_seed(seed_of(*keys))


@contextmanager
def seeded_globals(*keys: int | str) -> Iterator[None]:
    """Seed the global streams of Python, numpy and torch (CPU) for a block, and put them back as they were afterwards.

    For libraries that take no generator: timm's augmentations draw from all three.
    """
    seed = seed_of(*keys)
    python, legacy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        random.seed(seed)
        np.random.seed(seed % 2**32)
        torch.default_generator.manual_seed(seed)
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(legacy)
