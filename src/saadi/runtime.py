"""The process around a run: threads and quiet libraries. (That no library reaches the network: `saadi/__init__.py`.)"""

from __future__ import annotations

import warnings

import torch
from diffusers.utils import logging as diffusers_logging
from transformers.utils import logging as transformers_logging

from saadi.config import RunConfig


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
