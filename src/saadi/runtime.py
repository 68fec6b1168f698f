"""The process around a run: threads and quiet libraries. (That no library reaches the network: `saadi/__init__.py`.)"""

from __future__ import annotations

import warnings

import torch
from diffusers.utils import logging as diffusers_logging
from transformers.utils import logging as transformers_logging

from saadi.config import RunConfig
from saadi.errors import BadInput


def device_of(config: RunConfig) -> torch.device:
    """The device a run computes on. Raises `BadInput` for a GPU that is not there."""
    if config.device == "cuda" and not torch.cuda.is_available():
        raise BadInput("device: cuda was asked for, but torch sees no GPU; use device: auto or cpu")
    return torch.device("cuda" if config.device != "cpu" and torch.cuda.is_available() else "cpu")


def prepare_runtime(config: RunConfig) -> None:
    """Set the threads and make libraries silent."""
    if config.threads:
        torch.set_num_threads(config.threads)
    diffusers_logging.set_verbosity_error()
    diffusers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
