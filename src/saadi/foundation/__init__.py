"""The shipped foundation: our small stand-in for pretrained Stable Diffusion, and how it was made."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from saadi.errors import BadInput

PROVENANCE = "provenance.json"
"""Beside a foundation's weights: command, commit, passes, losses, the world's hash."""


def foundation_folder(*, inpainting: bool = False) -> Path:
    """The shipped weights' folder, in Stable Diffusion's format, with `provenance.json` and, where they are of text to
    image, `backbone.safetensors`. Raises `BadInput` if they are missing."""
    folder = Path(str(files("saadi.foundation") / ("weights-inpainting" if inpainting else "weights")))
    if not (folder / "model_index.json").is_file():
        raise BadInput(
            f"{folder}: the foundation's weights are missing from this installation; reinstall, or run saadi foundation"
        )
    return folder


def backbone_path(foundation: Path) -> Path:
    """Where a foundation keeps the weights of its backbone."""
    return foundation / "backbone.safetensors"
