"""Random streams that are a pure function of their keys, so that a resumed run draws what the undisturbed run drew."""

from __future__ import annotations

import hashlib

import torch


def seed_of(*keys: int | str) -> int:
    """A 63-bit seed from a path of keys, such as `("crops", seed, step, rank)`."""
    digest = hashlib.sha256("/".join(str(key) for key in keys).encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def generator(*keys: int | str) -> torch.Generator:
    """A CPU generator for a path of keys."""
    return torch.Generator().manual_seed(seed_of(*keys))
