"""SAADi, surgical application-aligned diffusion: the downstream model chooses what the diffusion model learns to make.

`saadi.run(config, folder)` runs the method; `saadi.load_config(path)` reads a configuration.
"""

from __future__ import annotations

import os
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # no network; huggingface_hub reads it once, when it is imported

if TYPE_CHECKING:
    from saadi.config import RunConfig
    from saadi.configfile import load_config
    from saadi.errors import BadInput
    from saadi.pipeline import run

__all__ = ["BadInput", "RunConfig", "load_config", "run"]
__version__ = version("saadi-diffusion")

_HOMES = {
    "run": "saadi.pipeline",
    "RunConfig": "saadi.config",
    "load_config": "saadi.configfile",
    "BadInput": "saadi.errors",
}


def __getattr__(name: str) -> Any:
    """Import on first use: `saadi --help` must not wait for torch."""
    if name not in _HOMES:
        raise AttributeError(f"module 'saadi' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)
