"""Fingerprints of what a run is made from, and arrays written whole."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

UNFINISHED, CHECKPOINT, SCRATCH = SCAFFOLD = ".unfinished", "checkpoint.safetensors", ".scratch"
"""In the folder of a stage that is not done: what it is being made from and the seconds spent on it so far; where its
training resumes from; what it needs while it is made. They go once its manifest is there."""

LIBRARIES = ("saadi-diffusion", "torch", "torchvision", "diffusers", "transformers", "peft", "timm", "numpy")


def versions() -> dict[str, str]:
    """The libraries whose release can change a result."""
    return {name: importlib.metadata.version(name) for name in LIBRARIES}


def digest(value: Any) -> str:
    """A short fingerprint of anything JSON can say."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:16]


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def save_array(path: Path, array: NDArray[Any]) -> None:
    """Write an array as `np.save` does, but whole or not at all, and with a reason where that fails.

    `np.save` leaves the writing to C, whose `OSError` on a full disk has no errno by which to know it.
    """
    partial, values = path.with_name(path.name + ".partial"), np.ascontiguousarray(array)
    with partial.open("wb") as handle:
        np.lib.format.write_array_header_1_0(handle, np.lib.format.header_data_from_array_1_0(values))
        handle.write(values.data)
        handle.flush()
        os.fsync(handle.fileno())
    partial.replace(path)
