"""Randomness by name: every draw has a key, so nothing depends on order, batches or where a run was interrupted."""

from __future__ import annotations

import hashlib

import numpy as np
import torch


def seed_of(*keys: int | str) -> int:
    """A 63-bit seed from a path of keys, e.g. `seed_of(config.seed, "samples", round, label, index)`."""
    digest = hashlib.sha256("\x1f".join(str(key) for key in keys).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def numpy_rng(*keys: int | str) -> np.random.Generator:
    """A numpy generator for a path of keys."""
    return np.random.default_rng(seed_of(*keys))


def torch_rng(*keys: int | str) -> torch.Generator:
    """A CPU torch generator for a path of keys."""
    return torch.Generator().manual_seed(seed_of(*keys))
