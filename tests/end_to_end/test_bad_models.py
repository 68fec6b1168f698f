"""Model folders that are none, or mean harm: exit code 2, one line that names what is wrong, and nothing written."""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Command
from safetensors.torch import load_file, save_file
from small_stable import clip_tokenizer
from torch import Tensor

from saadi.foundation import foundation_folder

UNET, TEXT = "unet/diffusion_pytorch_model.safetensors", "text_encoder/model.safetensors"


def _said(file: str, **values: object) -> Callable[[Path], Any]:
    """Say something else in a JSON file of a model."""

    def spoil(model: Path) -> None:
        found = json.loads((model / file).read_text(encoding="utf-8"))
        (model / file).write_text(json.dumps(found | values), encoding="utf-8")

    return spoil


def _tensors(file: str, change: Callable[[dict[str, Tensor]], Any]) -> Callable[[Path], Any]:
    """Change the tensors of one of a model's files."""

    def spoil(model: Path) -> None:
        tensors = load_file(model / file)
        change(tensors)
        save_file(tensors, model / file, {"format": "pt"})

    return spoil


def _header(file: str, size: int, header: bytes) -> Callable[[Path], Any]:
    """Make a file of safetensors one with a crafted header."""
    return lambda model: (model / file).write_bytes(struct.pack("<Q", size or len(header)) + header + b"\0" * 8)


def _pickled(model: Path) -> None:
    """A pickle, which is never opened, where the weights should be."""
    torch.save({"weight": torch.zeros(1)}, (model / UNET).with_suffix(".bin"))
    (model / UNET).unlink()


def _own_code(model: Path) -> None:
    """Code that the folder brings along."""
    for place in (model, model / "unet"):
        (place / "mine.py").write_text("raise SystemExit('ran')\nclass Mine: pass\n", encoding="utf-8")
    _said("model_index.json", _class_name=["mine", "Mine"], unet=["mine", "Mine"])(model)


HUGE = json.dumps({"a": {"dtype": "F32", "shape": [2**40, 2**40], "data_offsets": [0, 8]}}).encode()
MODELS: dict[str, tuple[Callable[[Path], Any], tuple[str, ...]]] = {
    "no index": (lambda at: (at / "model_index.json").unlink(), ("model_index.json",)),
    "empty index": (lambda at: (at / "model_index.json").write_text("{}"), ("says None",)),
    "no parts": (lambda at: (at / "model_index.json").write_text("[1]"), ("no parts",)),
    "index nested too deeply": (lambda at: (at / "model_index.json").write_text("[" * 99_999), ("cannot be opened",)),
    "another pipeline": (
        _said("model_index.json", _class_name="StableDiffusionXLPipeline"),
        ("StableDiffusionXLPipeline, not StableDiffusionPipeline",),
    ),
    "another class": (_said("model_index.json", unet=["diffusers", "UNet2DModel"]), ("unet", "class UNet2DModel")),
    "no such scheduler": (_said("model_index.json", scheduler=["os", "system"]), ("scheduler",)),
    "code of its own": (_own_code, ("['mine', 'Mine'], not",)),
    "no part": (lambda at: shutil.rmtree(at / "unet"), ("cannot be opened",)),
    "no weights": (lambda at: (at / TEXT).unlink(), ("cannot be opened",)),
    "pickled weights": (_pickled, ("cannot be opened",)),
    "half the weights": (lambda at: (at / TEXT).write_bytes((at / TEXT).read_bytes()[:5000]), ("incomplete",)),
    "a weight missing": (_tensors(UNET, lambda found: found.pop("conv_in.bias")), ("unet has no weight conv_in.bias",)),
    "a weight of another shape": (
        _tensors(UNET, lambda found: found.update({"conv_in.bias": torch.zeros(3)})),
        ("conv_in.bias", "shape"),
    ),
    "a header that claims too much": (_header(TEXT, 2**40, b"{}"), ("header",)),
    "a header of huge tensors": (_header(TEXT, 0, HUGE), ("header",)),
    "another tokenizer": (lambda at: clip_tokenizer().save_pretrained(at / "tokenizer"), ("49408 words", "encoder")),
    "no vocabulary": (lambda at: (at / "tokenizer/tokenizer.json").write_text("{}"), ("cannot be opened",)),
    "another text encoder": (_said("unet/config.json", cross_attention_dim=64), ("cannot be opened",)),
    "another autoencoder": (
        lambda at: shutil.copytree(foundation_folder(inpainting=True) / "vae", at / "vae", dirs_exist_ok=True),
        ("12 channels in and 12 out, the autoencoder 4",),
    ),
}


@pytest.mark.parametrize("name", MODELS)
def test_folders_that_are_no_stable_diffusion(name: str, saadi: Command, tiny: Path, tmp_path: Path) -> None:
    spoil, words = MODELS[name]
    model = Path(shutil.copytree(foundation_folder(), tmp_path / "model"))
    spoil(model)
    outcome = saadi("run", tiny, "--out", tmp_path / "run", "--set", f"base.model={model}")
    outcome.refused(str(model), *words)
    assert not (tmp_path / "run").exists()
