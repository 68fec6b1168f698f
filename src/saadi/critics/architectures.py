"""Downstream models by name: the small networks, any of timm's or segmentation-models-pytorch's, the user's own."""

from __future__ import annotations

import difflib
import importlib
import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import timm
from safetensors import SafetensorError
from safetensors.torch import load_file
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor, nn
from torch.nn import functional

from saadi.critics.networks import SmallCNN, SmallUNet
from saadi.errors import BadInput
from saadi.files import file_digest
from saadi.foundation import backbone_path, foundation_folder


@dataclass(frozen=True)
class Architecture:
    """How to make a fresh model for a number of classes, and how it wants its input: normalised (mean, std by channel),
    and enlarged to `side` pixels where it is smaller (0: never), since its features are of that scale."""

    name: str
    build: Callable[[int], nn.Module]
    mean: tuple[float, float, float] = IMAGENET_DEFAULT_MEAN
    std: tuple[float, float, float] = IMAGENET_DEFAULT_STD
    side: int = 0

    def prepared(self, images: Tensor) -> Tensor:
        """What the model is shown of images [N, 3, S, S] in 0 .. 1; differentiable."""
        mean, std = (images.new_tensor(values).view(1, 3, 1, 1) for values in (self.mean, self.std))
        shown = (images - mean) / std
        if shown.shape[-1] >= self.side:
            return shown
        return functional.interpolate(shown, (self.side, self.side), mode="bilinear", align_corners=False)


@dataclass(frozen=True)
class Library:
    """Somebody's collection of architectures and the form of its checkpoint folders.

    `kind`: the key of config.json that names the architecture; `saved_by`: what writes the folder. `known(name)`: an
    architecture of the library. `make(config, classes)`: one with random weights, from what config.json says.
    `head(model)`: the modules whose outputs are the classes'.
    """

    name: str
    kind: str
    saved_by: str
    known: Callable[[str], bool]
    make: Callable[[Mapping[str, Any], int], nn.Module]
    head: Callable[[nn.Module], tuple[nn.Module, ...]]


FILES = ("config.json", "model.safetensors")
"""What a checkpoint's folder has to hold."""
_OTHERS = ("checkpoint", "pretrained", "cache_dir")
"""Arguments that would have a library open other files than the checkpoint's, which may be pickles."""


def _smp() -> Any:
    """segmentation-models-pytorch, imported when it is asked for."""
    return importlib.import_module("segmentation_models_pytorch")


def _make_timm(config: Mapping[str, Any], classes: int) -> nn.Module:
    arguments = {key: value for key, value in config.get("model_args", {}).items() if not key.startswith(_OTHERS)}
    arguments["num_classes"] = classes
    model: nn.Module = timm.create_model(config["architecture"], pretrained=False, **arguments)
    return model


def _make_smp(config: Mapping[str, Any], classes: int) -> nn.Module:
    arguments = {key: value for key, value in config.items() if not key.startswith(("_", *_OTHERS))}
    # No weights from elsewhere, logits and nothing beside them.
    arguments |= {"encoder_weights": None, "classes": classes, "activation": None, "aux_params": None}
    model: nn.Module = getattr(_smp(), config["_model_class"])(**arguments)
    return model


def _timm_head(model: nn.Module) -> tuple[nn.Module, ...]:
    """A timm model's classifier, or classifiers: distilled models have two."""
    found = model.get_classifier()  # type: ignore[operator]
    return tuple(m for m in (found if isinstance(found, tuple) else (found,)) if isinstance(m, nn.Module))


def _smp_names() -> list[str]:
    return [kind.__name__ for kind in _smp().MODEL_ARCHITECTURES_MAPPING.values()]


TIMM = Library(
    "timm", "architecture", "timm.models.save_for_hf", lambda name: name in timm.list_models(), _make_timm, _timm_head
)
SMP = Library(
    "segmentation-models-pytorch",
    "_model_class",
    "its save_pretrained",
    lambda name: name in _smp_names(),
    _make_smp,
    lambda model: (model.segmentation_head,),  # type: ignore[arg-type,return-value]
)


def _from_checkpoint(folder: Path, library: Library) -> Architecture:
    config_path, weights_path = (folder / name for name in FILES)
    if not config_path.is_file() or not weights_path.is_file():
        raise BadInput(
            f"model {folder}: expected {library.name}'s config.json and model.safetensors "
            f"({library.saved_by}); no pickles"
        )
    try:
        config = json.loads(config_path.read_text(encoding="utf-8"))
        weights = load_file(weights_path)
        kind = config[library.kind]
        known = library.known(kind)
    except (ValueError, KeyError, TypeError, SafetensorError) as error:
        raise BadInput(f"model {folder}: not a {library.name} checkpoint ({type(error).__name__}: {error})") from None
    if not known:
        raise BadInput(f"model {folder}: config.json names {kind!r}, which {library.name} does not know")

    def build(classes: int) -> nn.Module:
        model = library.make(config, classes)
        fresh = {id(p) for module in library.head(model) for p in module.parameters()}
        head = {name for name, p in model.named_parameters() if id(p) in fresh}
        own = model.state_dict()
        fitting = {k: v for k, v in weights.items() if k in own and k not in head and own[k].shape == v.shape}
        if not fitting:
            raise BadInput(f"model {folder}: none of the weights fit {kind}")
        model.load_state_dict(fitting, strict=False)
        return model

    pretrained = config.get("pretrained_cfg", {})
    mean, std = pretrained.get("mean", IMAGENET_DEFAULT_MEAN), pretrained.get("std", IMAGENET_DEFAULT_STD)
    # Logits of pixels are wanted as many as there are pixels
    side = max(pretrained.get("input_size", (0,))[1:], default=0) if library is TIMM else 0
    return Architecture(str(folder), build, tuple(mean), tuple(std), side)


def _from_factory(name: str) -> Architecture:
    module_name, _, function_name = name.partition(":")
    try:
        factory = getattr(importlib.import_module(module_name), function_name)
    except (ImportError, AttributeError, ValueError, TypeError) as error:
        raise BadInput(
            f"model {name}: cannot be imported ({error}); expected package.module:factory on the Python path, "
            "such as PYTHONPATH=. has of this folder"
        ) from None

    def build(classes: int) -> nn.Module:
        made = factory(classes)
        if not isinstance(made, nn.Module):
            raise BadInput(f"model {name}: the factory returned {type(made).__name__}, not a torch.nn.Module")
        return made

    probe = build(2)
    mean, std = getattr(probe, "mean", IMAGENET_DEFAULT_MEAN), getattr(probe, "std", IMAGENET_DEFAULT_STD)
    return Architecture(name, build, tuple(mean), tuple(std))


def _from_pretext(make: Callable[[int], nn.Module], classes: int) -> nn.Module:
    """A small network with the features that SmallCNN learnt on the pretext world; all else is fresh."""
    weights = load_file(backbone_path(foundation_folder()))
    net = make(classes)
    net.load_state_dict({k: v for k, v in weights.items() if k.startswith("features.")}, strict=False)
    return net


def _from_smp(name: str) -> Architecture:
    """`smp:<architecture>:<encoder>`, from scratch."""
    kind, _, encoder = name.removeprefix("smp:").partition(":")
    encoders = [*_smp().encoders.get_encoder_names(), *(f"tu-{model}" for model in timm.list_models())]
    for what, given, known in (("architecture", kind, _smp_names()), ("encoder", encoder, encoders)):
        if given not in known:
            hint = _hint(given, known) or "; expected smp:<architecture>:<encoder>, such as smp:Unet:resnet18"
            raise BadInput(f"model {name}: segmentation-models-pytorch has no {what} {given!r}{hint}")
    return Architecture(name, partial(_make_smp, {"_model_class": kind, "encoder_name": encoder}))


def _encoder(name: str) -> str:
    """What segmentation-models-pytorch calls a timm model."""
    return name if name in _smp().encoders.get_encoder_names() else f"tu-{name}"


def _hint(given: str, known: Collection[str]) -> str:
    """The names that are nearest, or nothing."""
    near = difflib.get_close_matches(given, known, 3, 0.5)
    return f"; did you mean {', '.join(near)}?" if near else ""


def penultimate(net: nn.Module, x: Tensor) -> Tensor:
    """What a classifier's last layer sees, [N, D], of images [N, 3, H, W]: of timm's models, or by the module's own
    `embed`. Raises `BadInput` where it has neither."""
    body, head, embed = (getattr(net, name, None) for name in ("forward_features", "forward_head", "embed"))
    made: object = None
    if callable(body) and callable(head):
        made = head(body(x), pre_logits=True)
    elif callable(embed):
        made = embed(x)
    if not isinstance(made, Tensor) or made.ndim != 2 or len(made) != len(x):
        kind = type(net).__name__
        raise BadInput(f"{kind} does not tell what its last layer sees; give it embed(images), features [N, D]")
    return made


def contents(model: str) -> list[str]:
    """What a model's folder holds, for a stage's key: digests of its files; nothing for what is no folder."""
    return [file_digest(Path(model) / name) for name in FILES] if Path(model).is_dir() else []


Build = Callable[[int], nn.Module]
CLASSIFIERS: dict[str, Build] = {"small-cnn": SmallCNN, "pretext-cnn": partial(_from_pretext, SmallCNN)}
SEGMENTERS: dict[str, Build] = {"small-unet": SmallUNet, "pretext-unet": partial(_from_pretext, SmallUNet)}


def architecture(name: str, *, dense: bool = False) -> Architecture:
    """The model behind a name of the configuration: for logits [N, C], or `dense` [N, C, H, W], from images
    [N, 3, H, W]. Nothing is downloaded. Raises `BadInput`."""
    own = SEGMENTERS if dense else CLASSIFIERS
    if name in own:
        return Architecture(name, own[name])
    if Path(name).is_dir():
        return _from_checkpoint(Path(name), SMP if dense else TIMM)
    if dense and name.startswith("smp:"):
        return _from_smp(name)
    if ":" in name and not name.startswith("smp:"):
        return _from_factory(name)
    others = timm.list_models()
    if name in others and dense:
        raise BadInput(f"model {name}: sees no masks; as an encoder it does: smp:Unet:{_encoder(name)}")
    if name in others:
        return Architecture(name, partial(_make_timm, {"architecture": name}))
    library = "smp:<architecture>:<encoder>" if dense else "a timm name"
    expected = f"; expected {', '.join(own)}, {library}, a folder or package.module:factory"
    raise BadInput(f"model {name}: unknown{_hint(name, own if dense else [*own, *others]) or expected}")
