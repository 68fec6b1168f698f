"""The process around a run: threads and quiet libraries. (That no library reaches the network: `saadi/__init__.py`.)"""

from __future__ import annotations

import re
import resource
import warnings
from pathlib import Path

import torch
from diffusers.utils import logging as diffusers_logging
from transformers.utils import logging as transformers_logging

from saadi.config import RunConfig
from saadi.errors import BadInput

ALL_THREADS = torch.get_num_threads()


def device_of(config: RunConfig) -> torch.device:
    """The device a run computes on. Raises `BadInput` for a GPU that is not there."""
    if config.device == "cuda" and not torch.cuda.is_available():
        raise BadInput("device: cuda was asked for, but torch sees no GPU; use device: auto or cpu")
    return torch.device("cuda" if config.device != "cpu" and torch.cuda.is_available() else "cpu")


def precision_of(config: RunConfig) -> torch.dtype:
    """The type of a diffusion model's weights that do not learn."""
    kinds = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    if config.compute.precision != "auto":
        return kinds[config.compute.precision]
    if device_of(config).type == "cpu":
        return torch.float32
    return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16


def peak_memory() -> int:
    """Bytes this process has taken at its peak.

    `getrusage` would count what its parent took before it was this process; only where there is no /proc is that used.
    """
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii")
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return int(re.findall(r"VmHWM:\s+(\d+) kB", status)[0]) * 1024


def prepare_runtime(config: RunConfig) -> None:
    """Set the threads and make libraries silent."""
    torch.set_num_threads(config.threads or ALL_THREADS)
    diffusers_logging.set_verbosity_error()
    diffusers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
