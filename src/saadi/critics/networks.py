"""Downstream models by name: the small CNN, any timm model, a timm checkpoint folder, or the user's own factory."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import timm
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor, nn

from saadi.errors import BadInput
from saadi.foundation import backbone_path, foundation_folder


class SmallCNN(nn.Module):
    """Five 3x3 convolutions with batch norm: 10 million multiply-adds at 64 px, from scratch, in seconds."""

    def __init__(self, classes: int, widths: tuple[int, int, int] = (20, 36, 72)) -> None:
        super().__init__()
        a, b, c = widths

        def layer(fan_in: int, fan_out: int, stride: int) -> list[nn.Module]:
            return [
                nn.Conv2d(fan_in, fan_out, 3, stride, 1, bias=False),
                nn.BatchNorm2d(fan_out),
                nn.ReLU(inplace=True),
            ]

        self.features = nn.Sequential(
            *layer(3, a, 2), *layer(a, b, 2), *layer(b, b, 1), *layer(b, c, 2), *layer(c, c, 1)
        )  # fmt: skip
        self.head = nn.Linear(2 * c, classes)

    def embed(self, x: Tensor) -> Tensor:
        """[N, 3, H, W] in about [-2, 2] to [N, 2c]: the mean and the peak of each feature map."""
        maps = self.features(x)
        return torch.cat([maps.mean((2, 3)), maps.amax((2, 3))], 1)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.embed(x))
        return logits


@dataclass(frozen=True)
class Architecture:
    """How to make a fresh model for a number of classes, and its input normalisation (mean, std by channel)."""

    name: str
    build: Callable[[int], nn.Module]
    mean: tuple[float, float, float] = IMAGENET_DEFAULT_MEAN
    std: tuple[float, float, float] = IMAGENET_DEFAULT_STD


def _from_pretext(classes: int) -> nn.Module:
    """The small CNN with the features it learnt on the pretext world, and a fresh head."""
    weights = load_file(backbone_path(foundation_folder()))
    net = SmallCNN(classes)
    net.load_state_dict({k: v for k, v in weights.items() if not k.startswith("head.")}, strict=False)
    return net


def _from_factory(name: str) -> Architecture:
    module_name, _, function_name = name.partition(":")
    try:
        factory = getattr(importlib.import_module(module_name), function_name)
    except (ImportError, AttributeError, ValueError, TypeError) as error:
        raise BadInput(
            f"model {name}: cannot be imported ({error}); expected package.module:factory on the Python path"
        ) from None

    def build(classes: int) -> nn.Module:
        made = factory(classes)
        if not isinstance(made, nn.Module):
            raise BadInput(f"model {name}: the factory returned {type(made).__name__}, not a torch.nn.Module")
        return made

    probe = build(2)
    mean, std = getattr(probe, "mean", IMAGENET_DEFAULT_MEAN), getattr(probe, "std", IMAGENET_DEFAULT_STD)
    return Architecture(name, build, tuple(mean), tuple(std))


def _head(model: nn.Module) -> set[str]:
    """Names of the parameters of a timm model's classifier, or classifiers: distilled models have two."""
    found = model.get_classifier()  # type: ignore[operator]
    modules = found if isinstance(found, tuple) else (found,)
    own = {id(p) for module in modules if isinstance(module, nn.Module) for p in module.parameters()}
    return {name for name, p in model.named_parameters() if id(p) in own}


def _from_checkpoint(folder: Path) -> Architecture:
    config_path, weights_path = folder / "config.json", folder / "model.safetensors"
    if not config_path.is_file() or not weights_path.is_file():
        raise BadInput(
            f"model {folder}: expected timm's config.json and model.safetensors (timm.models.save_for_hf); no pickles"
        )
    try:
        config = json.loads(config_path.read_text(encoding="utf-8"))
        weights = load_file(weights_path)
        known = config["architecture"] in timm.list_models()
    except (ValueError, KeyError, TypeError, SafetensorError) as error:
        raise BadInput(f"model {folder}: not a timm checkpoint ({type(error).__name__}: {error})") from None
    if not known:
        raise BadInput(f"model {folder}: config.json names {config['architecture']!r}, which timm does not know")
    pretrained = config.get("pretrained_cfg", {})

    def build(classes: int) -> nn.Module:
        arguments = {**config.get("model_args", {}), "num_classes": classes}
        model: nn.Module = timm.create_model(config["architecture"], pretrained=False, **arguments)
        own, head = model.state_dict(), _head(model)
        fitting = {k: v for k, v in weights.items() if k in own and k not in head and own[k].shape == v.shape}
        if not fitting:
            raise BadInput(f"model {folder}: none of the weights fit {config['architecture']}")
        model.load_state_dict(fitting, strict=False)
        return model

    mean, std = pretrained.get("mean", IMAGENET_DEFAULT_MEAN), pretrained.get("std", IMAGENET_DEFAULT_STD)
    return Architecture(str(folder), build, tuple(mean), tuple(std))


def architecture(name: str) -> Architecture:
    """The model behind a name of the configuration. Nothing is downloaded. Raises `BadInput`."""
    if name == "small-cnn":
        return Architecture(name, SmallCNN)
    if name == "pretext-cnn":
        return Architecture(name, _from_pretext)
    if Path(name).is_dir():
        return _from_checkpoint(Path(name))
    if ":" in name:
        return _from_factory(name)
    if name not in timm.list_models():
        near = timm.list_models(f"*{name[:6]}*")[:3]
        hint = (
            f"; did you mean {', '.join(near)}?"
            if near
            else "; expected small-cnn, pretext-cnn, a timm name, a folder or package.module:factory"
        )
        raise BadInput(f"model {name}: unknown{hint}")

    def build(classes: int) -> nn.Module:
        model: nn.Module = timm.create_model(name, pretrained=False, num_classes=classes)
        return model

    return Architecture(name, build)
