"""Models by their name on the Hugging Face hub: fetched on one's word alone, safetensors only."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

from saadi.configfile import HUB
from saadi.errors import BadInput

WANTED = [
    "README.md", "model_index.json", "*/config.json", "scheduler/*.json", "tokenizer/*",
    "unet/diffusion_pytorch_model.safetensors", "vae/diffusion_pytorch_model.safetensors",
    "text_encoder/model.safetensors",
]  # fmt: skip
"""Of a repository: no pickled weights, no second copy in another precision, no safety checker."""

_FETCH = (
    "import sys; from huggingface_hub import snapshot_download as get; get(sys.argv[1], allow_patterns=sys.argv[2:])"
)


def folder_of(model: str) -> Path:
    """Where a `base.model` lies that is a folder or, `hub:` before its name, was fetched. Raises `BadInput`."""
    return fetched(model.removeprefix(HUB)) if model.startswith(HUB) else Path(model)


def fetched(name: str) -> Path:
    """The folder of a model that was fetched before. The network is not touched. Raises `BadInput`."""
    try:
        return Path(snapshot_download(name, local_files_only=True))
    except (LocalEntryNotFoundError, HFValidationError, OSError, ValueError):
        raise BadInput(f"base.model: {HUB}{name} is not on this machine; `saadi fetch {name}` gets it") from None


def fetch(name: str) -> Path:
    """Download a model into the hub's cache and return its folder. Raises `BadInput` where that fails.

    In a process of its own: in this one the network is off.
    """
    environment = {**os.environ, "HF_HUB_OFFLINE": "0"}
    command = [sys.executable, "-P", "-c", _FETCH, name, *WANTED]  # -P: of no module that lies in this folder
    done = subprocess.run(command, env=environment, stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise BadInput(f"{name}: cannot be fetched: {last:.300}")
    return fetched(name)
