"""The process around a run: threads, quiet libraries, no network."""

from __future__ import annotations

import os
import warnings

import torch
from diffusers.utils import logging as diffusers_logging
from transformers.utils import logging as transformers_logging

from saadi.config import RunConfig


def prepare_runtime(config: RunConfig) -> None:
    """Set the threads and make libraries silent; no library may reach the network from here on."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    if config.threads:
        torch.set_num_threads(config.threads)
    diffusers_logging.set_verbosity_error()
    diffusers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
