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


def seed_torch(key: int) -> None:
    """Seed torch's own state, of the CPU and of a GPU in use.

    As `torch.manual_seed`, which in every step of a training would also write down the call stack for each kind of
    device that this machine does not have.
    """
    torch.default_generator.manual_seed(key)
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.manual_seed_all(key)
